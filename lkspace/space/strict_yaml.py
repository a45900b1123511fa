"""YAML read so that no file can surprise: plain data only, no key twice, small also when expanded, one-line errors."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from lkspace.errors import UserError
from lkspace.space.architecture import short

# A space of every shipped kind is under 3 KB; what is larger is not a search space.
MAX_BYTES = 65_536
# A few aliases of aliases can stand for more values than memory holds: what a file means is bounded, too.
MAX_VALUES = 20_000


class _Loader(yaml.SafeLoader):
    """SafeLoader that also refuses what YAML allows and a reader would overlook."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"key {short(key)} is not a word", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {short(key)} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse(text: str, where: str) -> Any:
    """The one document in `text`, as plain data; UserError that starts with `where` and names the line."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{where}: {line}not valid YAML: {_line(error.problem or error)}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {_line(error)}") from None
    except RecursionError:
        raise UserError(f"{where}: not valid YAML: nested too deeply") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # A date such as 2001-99-99, a number of 5,000 digits, a tag that does not fit its value.
        raise UserError(f"{where}: a value cannot be read: {_line(error)}") from None
    if _values(value) > MAX_VALUES:
        raise UserError(f"{where}: more than {MAX_VALUES:,} values once its aliases are written out")
    return value


def _values(root: Any) -> int:
    """How many values there are with every alias written out, counted no further than needed."""
    count, left = 0, [root]
    while left and count <= MAX_VALUES:
        value = left.pop()
        count += 1
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return count


def read(path: Path) -> Any:
    """The data in a YAML file; UserError that names the file if it cannot be read or is not what `parse` takes."""
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, expected a YAML file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES // 1024} KiB, which no search space needs")
    try:
        return parse(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file: byte {error.start} is not UTF-8") from None


def _line(message: object) -> str:
    return " ".join(str(message).split())[:200]
