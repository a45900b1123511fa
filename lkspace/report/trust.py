"""What is known of a run's proxy, as a table for a terminal and in a line."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lkspace.report.numbers import UNKNOWN, shown
from lkspace.study import Study
from lkspace.study.record import Plan
from lkspace.study.trust import Verified

NOT_VERIFIED = "the proxy is not verified: `lkspace verify RUN` trains the front and others longer"


def trust_line(study: Study) -> str:
    """How far the accuracies of a run can be trusted; "" if it has none."""
    judged = [o.name for o in study.objectives] + [bound.name for bound in study.plan.constraints]
    if "accuracy" not in judged:
        return ""
    found = study.trust()
    return NOT_VERIFIED if found is None else found.text


def trust_table(study: Study) -> RenderableType:
    """The verified candidates, best longer accuracy first, for rich to print."""
    found, plan = study.trust(), study.plan
    if found is None:
        return Text(NOT_VERIFIED)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("trial", "accuracy\nproxy", "longer", "seeds", "latency\nthen", "now", "front", "front of\nthese"):
        table.add_column(Text(name), justify="left" if name == "front" else "right", no_wrap=True)
    for candidate in sorted(found.candidates, key=lambda c: -c.mean):
        table.add_row(*map(Text, _row(plan, candidate)))
    spread = "" if found.deviation is None else f"; seeds differ by {found.deviation:.2%} (standard deviation)"
    return Group(table, Text(), Text(found.text + spread))


def _row(plan: Plan, candidate: Verified) -> list[str]:
    low, high = min(candidate.accuracies), max(candidate.accuracies)
    return [
        str(candidate.number),
        shown(plan, "accuracy", candidate.proxy),
        shown(plan, "accuracy", candidate.mean),
        f"{shown(plan, 'accuracy', low)} to {shown(plan, 'accuracy', high)}" if high > low else UNKNOWN,
        shown(plan, "latency", candidate.latency),
        shown(plan, "latency", candidate.latency_now),
        "yes" if candidate.on_front else "no",
        UNKNOWN if candidate.membership is None else f"{candidate.membership:.0%}",
    ]
