"""The front as a table for a terminal, as CSV and as JSON."""

import json
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lkspace.record import Trial
from lkspace.report.numbers import scores, shown
from lkspace.study import Study


def front_table(study: Study) -> RenderableType:
    """The front, best in the first objective first, with what became of all trials below it; for rich to print."""
    plan, front, trials = study.plan, study.front(), study.trials
    footer = Text(f"{outcomes(study)}; hypervolume {study.hypervolume():.4g}", style="dim")
    if not front:
        return Group(Text("No front yet: no trial is complete and within the constraints."), footer)
    names = [n for n in scores(plan, trials) if any(n in t.values for t in front)]
    again = [n for n in names if any(n in t.remeasured for t in front)]
    table = Table(title=f"Front of {plan.name}: {len(front)} of {len(trials)} trials", title_justify="left")
    table.add_column("trial", justify="right", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
        if name in again:
            table.add_column(f"{name} again", justify="right", no_wrap=True)
    table.add_column("architecture", overflow="fold")
    for trial in front:
        cells = []
        for name in names:
            cells.append(shown(plan, name, trial.values.get(name)))
            if name in again:
                cells.append(shown(plan, name, trial.remeasured.get(name, {}).get("value")))
        table.add_row(str(trial.number), *cells, Text(str(trial.architecture)))
    return Group(table, footer)


def front_csv(study: Study) -> str:
    """The front's rows of `Study.table`, later measurements in columns of their own; per-stage fields as JSON."""
    table = study.table()
    front = study.front()
    rows = table.loc[[t.number for t in front]].copy()
    for name in dict.fromkeys(n for t in front for n in t.remeasured):
        rows[f"{name} again"] = [t.remeasured.get(name, {}).get("value") for t in front]
    for column in rows.columns:
        rows[column] = [json.dumps(v) if isinstance(v, list) else v for v in rows[column]]
    return rows.to_csv()


def front_json(study: Study) -> str:
    """An object with the run, its objectives and the front: every trial with its architecture and measurements."""
    plan = study.plan
    content = {
        "run": plan.name,
        "objectives": [{"name": o.name, "unit": o.unit, "direction": o.direction} for o in plan.objectives],
        "reference_point": study.reference_point,
        "hypervolume": study.hypervolume(),
        "counts": study.counts(),
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
