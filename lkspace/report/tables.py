"""The front as a table for a terminal, as CSV and as JSON."""

import dataclasses
import json
from typing import Any

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from lkspace.report.numbers import UNKNOWN, scores, shown
from lkspace.report.trust import trust_line
from lkspace.study import Study
from lkspace.study.record import Plan, Trial


def front_table(study: Study) -> RenderableType:
    """The front, best in the first objective first, with what became of all trials below it; for rich to print.

    It fits 80 columns with the objectives, blocks, channels and kernels; a wide terminal gets the other fields as well.
    """
    front = study.front()
    lines = [f"{outcomes(study)}; hypervolume {study.hypervolume():.4g}", trust_line(study)]
    footer = Text("\n".join(line for line in lines if line), style="dim")
    if not front:
        return Group(Text("No front yet: no trial is complete and within the constraints."), footer)
    head = Text(f"Front of {study.name}: {len(front)} of {len(study.trials)} trials", style="bold")
    return Group(head, Text(), _Table(study.plan, front), Text(), footer)


class _Table:
    """The front as wide as the terminal allows."""

    def __init__(self, plan: Plan, front: list[Trial]) -> None:
        self._plan = plan
        self._front = front

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        objectives = [o.name for o in self._plan.objectives]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        table.add_column("trial", justify="right", no_wrap=True)
        rows: list[list[str]] = [[str(t.number)] for t in self._front]

        def column(name: str, cells: list[str], justify: JustifyMethod = "left") -> None:
            table.add_column(Text(name), justify=justify, no_wrap=justify == "right")
            for row, cell in zip(rows, cells, strict=True):
                row.append(cell)

        for name in scores(self._plan, self._front) if options.max_width >= WIDE else objectives:
            column(name, [shown(self._plan, name, t.values.get(name)) for t in self._front], "right")
            again = [t.remeasured.get(name, {}).get("value") for t in self._front]
            if any(value is not None for value in again):
                column(f"{name}\nagain", [shown(self._plan, name, value) for value in again], "right")
        for name, field in _WIDE_FIELDS if options.max_width >= WIDE else _FIELDS:
            column(name, [_stages(getattr(t.architecture, field)) for t in self._front])
        for row in rows:
            table.add_row(*map(Text, row))
        yield table


WIDE = 120
_FIELDS = (("B", "blocks"), ("C", "channels"), ("K", "kernels"))
_WIDE_FIELDS = (*_FIELDS, ("re-param", "reparam"), ("shortcut", "shortcut"), ("dw", "dw_ratio"), ("ffn", "ffn_ratio"))


def _stages(value: Any) -> str:
    """A field of an architecture, its stages apart."""
    if not isinstance(value, tuple):
        return f"{value:g}"
    words: dict[Any, str] = {None: UNKNOWN, True: "y", False: "n"}
    return " ".join(words[v] if v is None or isinstance(v, bool) else str(v) for v in value)


def front_csv(study: Study, everything: bool = False) -> str:
    """The front's rows of `Study.table`, later measurements in columns of their own; per-stage fields as JSON.

    everything: all trials, by number, whatever became of them.
    """
    shown = study.trials if everything else study.front()  # before the table, in which it is then complete
    table = study.table()
    rows = table.loc[[t.number for t in shown]].copy()
    for name in dict.fromkeys(n for t in shown for n in t.remeasured):
        rows[f"{name} again"] = [t.remeasured.get(name, {}).get("value") for t in shown]
    for column in rows.columns:
        rows[column] = [json.dumps(v) if isinstance(v, list) else v for v in rows[column]]
    return rows.to_csv()


def front_json(study: Study) -> str:
    """An object with the run, its objectives, what verifying it said, and the front: every trial with its architecture
    and measurements."""
    plan, verified = study.plan, study.trust()
    content = {
        "run": plan.name,
        "objectives": [
            {"name": o.name, "unit": "fraction" if o.unit == "%" else o.unit, "direction": o.direction}
            for o in plan.objectives
        ],
        "reference_point": study.reference_point,
        "hypervolume": study.hypervolume(),
        "counts": study.counts(),
        "trust": None if verified is None else dataclasses.asdict(verified),
        "front": [trial_dict(t) for t in study.front()],
    }
    return json.dumps(content, indent=2, allow_nan=False)


def trial_dict(trial: Trial) -> dict[str, Any]:
    """JSON types: number, id, architecture, values and what they are made of."""
    return {
        "number": trial.number,
        "id": trial.id,
        "architecture": trial.architecture.to_dict(),
        "values": trial.values,
        "measurements": dict(trial.measurements),
        "remeasured": dict(trial.remeasured),
        "seconds": dict(trial.seconds),
    }


def outcomes(study: Study) -> str:
    """ "80 complete, 9 infeasible, 21 rejected: duplicate"; every candidate is in it."""
    return ", ".join(f"{n} {what}" for what, n in study.counts().items()) or "no trials"
