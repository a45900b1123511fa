"""One point of a search space: everything that decides which network is built, and nothing else.

Words as in RepLKNet (Ding et al., CVPR 2022, section 4.1): [B] blocks, [C] channels and [K] kernel sizes per
stage, the parallel re-param kernel, the shortcut of the RepLK block.
"""

import dataclasses
import functools
import hashlib
import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from lkspace.errors import UserError

STEM_STRIDES = (1, 2, 4)
PER_STAGE = ("blocks", "channels", "kernels", "reparam", "shortcut")
# Limits far beyond any network of this kind: they catch a slip of the finger before it fills the memory.
LARGEST = {"blocks": 200, "channels": 16_384, "kernels": 511, "reparam": 511}
LARGEST_RATIO = 32
LARGEST_STAGES = 8

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 3, 6, 4, 60, 60


@dataclass(frozen=True)
class Architecture:
    """A network of a family, immutable, hashable, validated and in canonical form.

    blocks, channels, kernels: one positive int per stage; kernels odd. A block is a RepLK block and a ConvFFN.
    reparam: side of the small kernel that trains beside the large one, per stage; odd, or None for none.
        Canonical: one that is not smaller than its large kernel is None.
    shortcut: whether the RepLK block adds its input to its output, per stage.
    dw_ratio, ffn_ratio: width of the RepLK block's and of the ConvFFN's inside over the stage's channels.
    stem_stride: how far the stem shrinks the image, 4 as published, 2 or 1 for small images.

    Raises UserError, naming the field and the value, if a field is not as above.
    """

    family: str
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    reparam: tuple[int | None, ...]
    shortcut: tuple[bool, ...]
    dw_ratio: float = 1.0
    ffn_ratio: float = 4.0
    stem_stride: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.family, str) or not self.family:
            raise UserError(f"architecture: family is {short(self.family)}, expected a name such as 'replknet'")
        for name in PER_STAGE:
            self._set(name, _stages(name, getattr(self, name)))
        stages = len(self.blocks)
        for name in PER_STAGE[1:]:
            if len(getattr(self, name)) != stages:
                raise UserError(
                    f"architecture: {name} has {len(getattr(self, name))} entries, blocks has {stages};"
                    " give one entry per stage"
                )
        for name in ("dw_ratio", "ffn_ratio"):
            self._set(name, _ratio(name, getattr(self, name)))
        if type(self.stem_stride) is not int or self.stem_stride not in STEM_STRIDES:
            raise UserError(f"architecture: stem_stride is {short(self.stem_stride)}, expected 1, 2 or 4")
        smaller = (s if s is not None and s < k else None for s, k in zip(self.reparam, self.kernels, strict=True))
        self._set("reparam", tuple(smaller))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.blocks)

    @functools.cached_property
    def id(self) -> str:
        """Ten hex digits, the same in every process and version: the start of SHA-256 over the JSON form."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:10]

    def map_sizes(self, size: int) -> tuple[int, ...]:
        """Side of the feature map that each stage sees for a square image of `size` pixels."""
        sides, side = [], size
        for _ in range({1: 0, 2: 1, 4: 2}[self.stem_stride]):
            side = -(-side // 2)
        for _ in range(self.stages):
            sides.append(side)
            side = -(-side // 2)
        return tuple(sides)

    def canonical(self, size: int) -> Self:
        """The same function of images of `size` pixels with no kernel beyond 2S-1, S the side of its map."""
        kernels = tuple(min(k, 2 * s - 1) for k, s in zip(self.kernels, self.map_sizes(size), strict=True))
        return self if kernels == self.kernels else dataclasses.replace(self, kernels=kernels)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and None, ready for JSON."""
        return json.loads(self.to_json())  # type: ignore[no-any-return]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces; equal architectures give equal text."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The architecture with these fields; UserError on unknown, missing or wrong ones."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - set(known)):
            raise UserError(f"architecture: unknown field {short(unknown[0])}; known: {', '.join(known)}")
        needed = [n for n, f in known.items() if f.default is dataclasses.MISSING and n not in fields]
        if needed:
            raise UserError(f"architecture: field {needed[0]!r} is missing")
        return cls(**fields)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`; UserError if the text is not a JSON object of these fields."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
            raise UserError(f"architecture: not JSON ({error})") from None
        if not isinstance(fields, dict):
            raise UserError(f"architecture: expected a JSON object, got {type(fields).__name__}")
        return cls.from_dict(fields)

    def __str__(self) -> str:
        small = ["-" if s is None else str(s) for s in self.reparam]
        return (
            f"B[{','.join(map(str, self.blocks))}] C[{','.join(map(str, self.channels))}]"
            f" K[{','.join(map(str, self.kernels))}] re-param[{','.join(small)}]"
            f" shortcut[{''.join('y' if s else 'n' for s in self.shortcut)}]"
            f" dw{self.dw_ratio:g} ffn{self.ffn_ratio:g} stem/{self.stem_stride}"
        )


def short(value: object) -> str:
    """`repr` of a value out of a user's file, on one line and never long."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"


def _stages(name: str, values: object) -> tuple[Any, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UserError(f"architecture: {name} is {short(values)}, expected a list with one entry per stage")
    if len(values) > LARGEST_STAGES:
        raise UserError(f"architecture: {name} has {len(values)} entries, expected at most {LARGEST_STAGES} stages")
    return tuple(_entry(name, value) for value in values)


def _entry(name: str, value: object) -> int | bool | None:
    if name == "shortcut":
        if isinstance(value, bool):
            return value
        raise UserError(f"architecture: shortcut holds {short(value)}, expected true or false")
    if name == "reparam" and (value is None or (type(value) is int and value == 0)):
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST[name]:
        raise UserError(f"architecture: {name} holds {short(value)}, expected a whole number from 1 to {LARGEST[name]}")
    if name in ("kernels", "reparam") and value % 2 == 0:
        raise UserError(
            f"architecture: {name} holds {value}, expected an odd number (an even kernel shifts and resizes the map)"
        )
    return value


def _ratio(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST_RATIO:
        raise UserError(f"architecture: {name} is {short(value)}, expected a number above 0, at most {LARGEST_RATIO}")
    return float(value)
