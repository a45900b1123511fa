"""`lkspace profile`: the latency table of a space by itself, and how far it can be trusted."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from lkspace import registry
from lkspace.errors import UserError
from lkspace.scores.agreement import Agreement, agreement
from lkspace.scores.latency import device_name
from lkspace.scores.latency_table import LatencyTable, distinct_parts
from lkspace.scores.score import Setting
from lkspace.search.progress import bar
from lkspace.space.search_space import SearchSpace

DRAWN = 200  # networks whose sums say what the space's latencies are


@dataclass(frozen=True)
class Profile:
    """A space's table. parts: distinct ones; new: timed just now; milliseconds: least, median and most of the space's
    networks by the table; checked: agreement with networks measured whole, None if too few were."""

    space: str
    table: LatencyTable
    parts: int
    new: int
    milliseconds: tuple[float, float, float]
    checked: Agreement | None

    @property
    def text(self) -> str:
        """For a terminal."""
        setting = self.table.setting
        low, middle, high = self.milliseconds
        lines = [
            f"{self.parts} parts of {self.space}, {self.new} of them timed now, on {device_name(setting.device)}"
            f" ({setting.latency_dtype}, batch {setting.latency_batch}, threads {setting.latency_threads})",
            f"networks, by the sums: {low:.3g} to {high:.3g} ms, median {middle:.3g} ms ({DRAWN} random ones)",
            f"kept in {self.table.path}",
        ]
        if self.checked is not None:
            lines.append(f"against networks measured whole: {self.checked.text}")
        return "\n".join(lines)


def profile(
    space: SearchSpace,
    overrides: dict[str, Any] | None = None,
    *,
    check: int = 0,
    again: bool = False,
    seed: int = 0,
    console: Console | None = None,
) -> Profile:
    """Time every part of the space that is not known yet; what is cut off goes on with the next call.

    overrides: fields of `Setting`, device and latency_* of it. check: random networks to measure whole as well, three
    or more. again: time what is known, too. Raises UserError if the device is not there, RunError if it is not quiet.
    """
    if 0 < check < 3:
        raise UserError(f"check is {check}, expected at least 3 networks, or 0 for none")
    setting = Setting(data="", size=space.image_size, classes=space.classes, seed=seed, **(overrides or {}))
    _check_device(setting.device)
    parts = distinct_parts(space)
    table = LatencyTable.open(setting)
    with bar(console, "timing parts") as progress:
        new = table.fill(parts, progress, again=again)
    rng = np.random.default_rng(seed)
    sums = [table.sum(space.sample(rng)) for _ in range(DRAWN)]
    pairs = []
    with bar(console if check else None, "measuring whole networks") as progress:
        for done in range(check):
            architecture = space.sample(rng)
            *_, measured = registry.scores.get("latency").measure(architecture, setting)
            pairs.append((table.terms(architecture), measured.value))
            if progress is not None:
                progress(done + 1, check)
    spread = (min(sums), float(np.median(sums)), max(sums))
    return Profile(space.name, table, len(parts), new, spread, agreement(pairs))


def _check_device(name: str) -> None:
    import torch

    if not re.fullmatch(r"cpu|cuda(:\d+)?", name, re.ASCII):
        raise UserError(f"device {name!r}: expected 'cpu', 'cuda' or 'cuda:N'")
    if name == "cpu":
        return
    if not torch.cuda.is_available():
        raise UserError(f"device {name!r}: torch finds no GPU here that it can use; give --device cpu")
    if (torch.device(name).index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r}: GPUs here are numbered 0 to {torch.cuda.device_count() - 1}")
