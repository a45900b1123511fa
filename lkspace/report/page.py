"""The page: one HTML file that holds the record as JSON, its figures' code and its style, and opens without a network.

What it shows is decided in page.js; here only what it is given. No text of the user's becomes HTML by itself: the data
are JSON whose "<" is escaped, and page.js writes text, never markup.
"""

import errno
import html
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from lkspace.errors import RunError, UserError
from lkspace.report.numbers import BETTER, duration, interval, made_of, scores, shown, unit
from lkspace.study import Study
from lkspace.study.record import Plan, Trial


def write_page(study: Study, path: str | Path) -> Path:
    """Write the page on a study, finished or not, to `path`; a reader meets the old file or the new, never half of one.

    Returns the absolute path. Raises UserError if it cannot be written there, RunError if the disk is full.
    """
    target = Path(os.path.expanduser(path)).absolute()
    part = target.parent / f".{target.name}.{os.getpid()}.part"
    text = page(study)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"no room left for the page {target}") from None
        raise UserError(f"cannot write the page {target}: {error.strerror}; name another file") from None
    return target


def page(study: Study) -> str:
    """The page as text."""
    folder = files("lkspace.report")
    parts = {
        "title": html.escape(study.name),
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "data": _embedded(page_data(study)),
        "plotly": get_plotlyjs(),
        "script": (folder / "page.js").read_text(encoding="utf-8"),
    }
    text, *rest = (folder / "page.html").read_text(encoding="utf-8").split("{{")
    for chunk in rest:  # in one pass, so that nothing inserted is taken for a place to insert
        name, _, after = chunk.partition("}}")
        text += parts[name] + after
    return text


def page_data(study: Study) -> dict[str, Any]:
    """All that page.js shows; JSON types."""
    # Before the trials: of a run that goes on, what is on the front is complete in them.
    front = {t.number for t in study.front()}
    plan, trials = study.plan, study.trials
    names = scores(plan, trials)
    return {
        "name": plan.name,
        "place": _place(study),
        "budget": plan.budget,
        "scores": [_score(plan, name, trials) for name in names],
        "objectives": [_objective(study, i) for i in range(len(plan.objectives))],
        "constraints": [str(b) for b in plan.constraints],
        "trials": [_trial(plan, names, t, t.number in front) for t in trials],
        "hypervolume": study.hypervolume(),
        "trust": None if (found := study.trust()) is None else found.text,
        "history": study.hypervolume_history(),
        "counts": study.counts(),
        "run": _run(plan, trials) + ([("latency table", table)] if (table := study.latency_table) else []),
    }


def _place(study: Study) -> str:
    """What `lkspace show` takes for the run: its name if it lies where runs lie, else the folder."""
    folder = study.folder
    if folder is None or (folder.parent.name == "runs" and folder.name == study.name):
        return study.name
    return str(folder)


def _score(plan: Plan, name: str, trials: list[Trial]) -> dict[str, Any]:
    return {"name": name, "unit": unit(plan, name), "again": any(name in t.remeasured for t in trials)}


def _objective(study: Study, index: int) -> dict[str, Any]:
    objective = study.objectives[index]
    reference = study.reference_point[objective.name]
    return {
        "name": objective.name,
        "score": index,  # objectives come first among the scores
        "sign": objective.sign,
        "better": BETTER[objective.direction],
        "reference": shown(study.plan, objective.name, reference),
        "ideal": shown(study.plan, objective.name, objective.ideal),
    }


def _trial(plan: Plan, names: list[str], trial: Trial, on_front: bool) -> dict[str, Any]:
    architecture, size = trial.architecture, plan.setting.get("size")
    measurements = [trial.measurements.get(name) for name in names]
    again = [trial.remeasured.get(name) for name in names]
    return {
        "number": trial.number,
        "id": trial.id,
        "outcome": trial.outcome,
        "reason": trial.reason,
        "feasible": trial.feasible,
        "front": on_front,
        "origin": trial.origin,
        "values": [trial.values.get(name) for name in names],
        "shown": [shown(plan, name, trial.values.get(name)) for name in names],
        "interval": [interval(m) for m in measurements],
        "intervalShown": [_ends(plan, name, m) for name, m in zip(names, measurements, strict=True)],
        "madeOf": [made_of(m) for m in measurements],
        "again": [None if m is None else m["value"] for m in again],
        "againShown": [None if m is None else shown(plan, n, m["value"]) for n, m in zip(names, again, strict=True)],
        "architecture": architecture.to_dict(),
        "maps": architecture.map_sizes(int(size)) if size else None,
        "curve": [epoch.get("accuracy") for epoch in trial.curve],
        "seconds": round(sum(trial.seconds.values()), 3),
        "spent": ", ".join(f"{name} {duration(s)}" for name, s in trial.seconds.items()),
    }


def _ends(plan: Plan, name: str, measurement: Any) -> str | None:
    ends = interval(measurement)
    return None if ends is None else f"{shown(plan, name, ends[0])} to {shown(plan, name, ends[1])}"


def _run(plan: Plan, trials: list[Trial]) -> list[tuple[str, str]]:
    """What was run, in rows for a reader."""
    setting, environment = plan.setting, plan.environment
    packages = environment.get("packages", {})
    device = ", ".join(environment.get("gpus", [])) or environment.get("processor") or setting.get("device", "")
    started = min((t.started for t in trials if t.started), default=None)
    rows = {
        "command": plan.command,
        "search space": f"{plan.space.get('name', '')} ({plan.space.get('family', '')})",
        **(_setting(setting) if setting else {}),
        "objectives": ", ".join(f"{o.name} ({BETTER[o.direction]})" for o in plan.objectives),
        "constraints": ", ".join(map(str, plan.constraints)) or "none",
        "sampler, seed": f"{plan.sampler}, {plan.seed}",
        "early stopping": plan.early_stopping,
        "trials at a time": str(environment.get("concurrency", "")),
        "device": str(device),
        "system": str(environment.get("system", "")),
        "versions": ", ".join(f"{k} {v}" for k, v in {"python": environment.get("python"), **packages}.items() if v),
        "begun": started.strftime("%Y-%m-%d %H:%M") if started else "",
        "time in trials": duration(sum(sum(t.seconds.values()) for t in trials)),
    }
    return [(name, text) for name, text in rows.items() if text]


def _setting(setting: Mapping[str, Any]) -> dict[str, str]:
    return {
        "data": f"{setting.get('data')}, {setting.get('size')} px, {setting.get('classes')} classes",
        "proxy training": f"{setting.get('epochs')} epochs, batch {setting.get('batch')}, rate {setting.get('rate')}",
        "latency": f"batch {setting.get('latency_batch')}, {setting.get('latency_dtype')},"
        f" threads {setting.get('latency_threads')}",
    }


def _embedded(data: dict[str, Any]) -> str:
    """JSON that can stand inside a script element: nothing in it can end the element or begin a comment."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
