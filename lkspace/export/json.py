"""The architecture alone, as a JSON file that `lkspace.Architecture.from_json` reads and `lkspace.build` builds."""

from pathlib import Path

from lkspace.errors import UserError
from lkspace.export.target import Package
from lkspace.nets import Form
from lkspace.registry import exporters
from lkspace.space.architecture import Architecture

FILE = "architecture.json"


class Json:
    """One small file, without weights; any architecture, whatever the form."""

    forms: tuple[Form, ...] = ("train", "deploy", "folded")
    files = (FILE,)
    takes_weights = False

    def refusal(self, architecture: Architecture, form: Form) -> str | None:
        """Nothing is refused."""
        return None

    def write(self, package: Package, folder: Path) -> None:
        """Write `architecture.json`."""
        (folder / FILE).write_text(package.architecture.to_json() + "\n", encoding="utf-8")

    def verify(self, folder: Path) -> None:
        """Read it; UserError if it is not there or not an architecture."""
        read(folder / FILE)


exporters.register("json")(Json())


def read(path: str | Path) -> Architecture:
    """The architecture in a file; UserError that names the file if there is none."""
    try:
        return Architecture.from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
