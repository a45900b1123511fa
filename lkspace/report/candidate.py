"""One candidate in words: its architecture, and what each of its numbers is made of."""

import textwrap
from collections.abc import Iterator
from typing import Any

from lkspace.quantity import human
from lkspace.report.numbers import UNKNOWN, duration, made_of, plain, scores, shown, with_interval
from lkspace.study import Study
from lkspace.study.record import Plan, Trial

_PROXY = "accuracy is that of a short proxy training; it ranks candidates and is no promise for a long one"


def candidate_text(study: Study, number: int) -> str:
    """Several lines on trial `number`; UserError if there is no such trial. Imports the networks for their costs."""
    plan, trial = study.plan, study.trial(number)
    on_front = any(t.number == number for t in study.front())
    return "\n".join(
        [
            *_head(trial, on_front),
            "",
            *_stages(plan, trial),
            "",
            *_scores(plan, trial),
            *_verified(study, trial),
            *_curve(plan, trial),
            *_costs(plan, trial),
            *_seconds(trial),
        ]
    )


def _head(trial: Trial, on_front: bool) -> Iterator[str]:
    place = "on the front" if on_front else "not on the front"
    yield f"trial {trial.number}  {trial.id}  {trial.outcome}, {place}"
    if trial.reason:
        yield f"  because: {trial.reason}"
    if trial.outcome == "complete" and not trial.feasible:
        yield "  breaks a constraint of the run"
    if trial.origin != "sampler":
        yield f"  a {trial.origin} of the search space"


def _stages(plan: Plan, trial: Trial) -> Iterator[str]:
    a = trial.architecture
    size = plan.setting.get("size")
    maps = a.map_sizes(int(size)) if size else (UNKNOWN,) * a.stages
    small = [UNKNOWN if s is None else s for s in a.reparam]
    yield f"{a.family}, stem stride {a.stem_stride}, dw_ratio {a.dw_ratio:g}, ffn_ratio {a.ffn_ratio:g}"
    head = ("stage", "map", "blocks", "channels", "kernel", "re-param", "shortcut")
    shortcut = ["yes" if s else "no" for s in a.shortcut]
    columns = (range(1, a.stages + 1), maps, a.blocks, a.channels, a.kernels, small, shortcut)
    yield from _aligned([head, *zip(*columns, strict=True)])


def _scores(plan: Plan, trial: Trial) -> Iterator[str]:
    yield "scores"
    for name in scores(plan, [trial]):
        measurement = trial.measurements.get(name)
        yield f"  {name:10} {with_interval(plan, name, measurement)}"
        yield from _wrapped(made_of(measurement))
        if again := trial.remeasured.get(name):
            yield f"  {'':10} again at the end: {with_interval(plan, name, again)}"
            yield from _wrapped(made_of(again))
    if "accuracy" in trial.measurements:
        yield f"  {_PROXY}"


def _verified(study: Study, trial: Trial) -> Iterator[str]:
    """What longer trainings of this candidate gave."""
    found = study.trust()
    for candidate in found.candidates if found is not None else ():
        if found is not None and candidate.number == trial.number:
            each = ", ".join(shown(study.plan, "accuracy", a) for a in candidate.accuracies)
            yield f"  trained for {found.epochs} epochs: {each}"
            if candidate.membership is not None:
                yield f"  on the front of the {len(found.candidates)} verified ones: {candidate.membership:.0%} likely"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 96, initial_indent=" " * 15, subsequent_indent=" " * 15)


def _curve(plan: Plan, trial: Trial) -> Iterator[str]:
    if not trial.curve:
        return
    keys = list(dict.fromkeys(key for epoch in trial.curve for key in epoch if key not in ("epoch", "epochs")))
    rows: list[tuple[Any, ...]] = [("epoch", *keys)]
    for i, epoch in enumerate(trial.curve, start=1):
        rows.append((epoch.get("epoch", i), *(_point(plan, key, epoch.get(key)) for key in keys)))
    yield ""
    yield "learning curve"
    yield from _aligned(rows)


def _point(plan: Plan, key: str, value: Any) -> str:
    if isinstance(value, float) and key in {o.name for o in plan.objectives}:
        return shown(plan, key, value)
    return UNKNOWN if value is None else plain(value)


def _costs(plan: Plan, trial: Trial) -> Iterator[str]:
    size, classes = plan.setting.get("size"), plan.setting.get("classes")
    if not size or not classes:
        return
    from lkspace.nets import costs

    parts: dict[str, list[int]] = {}
    for cost in costs(trial.architecture, size=int(size), classes=int(classes), form="deploy"):
        total = parts.setdefault(cost.kind, [0, 0])
        total[0] += cost.params
        total[1] += cost.macs
    params, macs = (sum(total[i] for total in parts.values()) for i in (0, 1))
    yield ""
    yield f"where params and FLOPs are (deploy form, {size} px, {classes} classes)"
    rows: list[tuple[Any, ...]] = [("part", "params", "", "FLOPs", "")]
    for kind, (p, m) in sorted(parts.items(), key=lambda item: -item[1][1]):
        rows.append((kind, human(p), f"{p / max(params, 1):.1%}", human(m), f"{m / max(macs, 1):.1%}"))
    rows.append(("all", human(params), "", human(macs), ""))
    yield from _aligned(rows)


def _seconds(trial: Trial) -> Iterator[str]:
    if trial.seconds:
        spent = ", ".join(f"{name} {duration(s)}" for name, s in trial.seconds.items())
        yield ""
        yield f"time: {spent}"


def _aligned(rows: list[tuple[Any, ...]]) -> Iterator[str]:
    text = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    for row in text:
        first, rest = row[0].ljust(widths[0]), (c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))
        yield ("  " + "  ".join([first, *rest])).rstrip()
