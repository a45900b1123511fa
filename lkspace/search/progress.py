"""What a person sees while a search runs: a live panel on a terminal, else a plain line now and then."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lkspace.quantity import human
from lkspace.search.evaluate import Report
from lkspace.space.architecture import Architecture

if TYPE_CHECKING:
    from lkspace.study import Study

LINE_EVERY = 30.0  # seconds between plain lines


class Display:
    """Follows a search; `console` None says nothing at all. The study is read only when a trial has ended."""

    def __init__(self, study: "Study", budget: int, console: Console | None, epochs: int) -> None:
        self._study = study
        self._budget = budget
        self._console = console
        self._epochs = epochs
        self._running: dict[int, tuple[Architecture, Report]] = {}
        self._ended_here = 0
        self._begin = time.monotonic()
        self._pause = _Pause()
        self._summary()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The live panel, on a terminal; it stays as it was last."""
        if self._console is None or not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=self._panel, console=self._console, refresh_per_second=2, redirect_stdout=False):
            yield

    def started(self, number: int, architecture: Architecture) -> None:
        """A trial was handed out, perhaps again."""
        self._running[number] = (architecture, Report())

    def reported(self, number: int, report: Report) -> None:
        """A trial got on."""
        if number in self._running:
            self._running[number] = (self._running[number][0], report)
        self._line()

    def ended(self, number: int) -> None:
        """A trial has its verdict in the study."""
        self._running.pop(number, None)
        self._ended_here += 1
        self._summary()
        self._line()

    def say(self, text: str) -> None:
        """A line for the person, above the panel."""
        say(self._console, text)

    def final(self) -> None:
        """The last line where there is no panel."""
        if self._console is not None and not self._console.is_terminal:
            self.say(self._plain())

    def _line(self) -> None:
        if self._console is None or self._console.is_terminal:
            return
        if self._pause.over():
            self.say(self._plain())

    def _summary(self) -> None:
        """Read from the study what the panel shows."""
        if self._console is None:
            return
        trials = self._study.trials
        self._outcomes = Counter(t.outcome for t in trials if t.outcome != "running")
        self._rejected = sum(self._study.rejected().values())
        self._volume = self._study.hypervolume()
        complete = [t for t in trials if t.outcome == "complete"]
        self._best = {}
        for objective in self._study.plan.objectives:
            if complete:
                trial = min(complete, key=lambda t: objective.sign * t.values[objective.name])
                self._best[objective.name] = (trial.values[objective.name], objective.unit, trial.number)

    @property
    def _done(self) -> int:
        return sum(self._outcomes.values())

    def _left(self) -> str:
        if not self._ended_here:
            return "time left unknown yet"
        each = (time.monotonic() - self._begin) / self._ended_here
        return f"{_clock(each * max(0, self._budget - self._done))} left"

    def _counts(self) -> str:
        parts = [f"{n} {o}" for o, n in sorted(self._outcomes.items()) if o != "complete"]
        parts += [f"{self._rejected} rejected"] if self._rejected else []
        return ", ".join(parts)

    def _bests(self) -> str:
        return ", ".join(f"{n} {human(v, _unit(n, u))} (#{t})" for n, (v, u, t) in self._best.items())

    def _plain(self) -> str:
        parts = [f"{self._done}/{self._budget} trials", self._counts(), self._bests() and f"best {self._bests()}"]
        parts += [f"hypervolume {self._volume:.4g}", self._left() if self._done < self._budget else ""]
        return "; ".join(p for p in parts if p)

    def _panel(self) -> RenderableType:
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(f"{self._done}/{self._budget} trials", style="bold"),
            ProgressBar(total=self._budget, completed=self._done, width=30),
            Text(self._left()),
            Text(f"hypervolume {self._volume:.4g}"),
            Text(self._counts(), style="yellow"),
        )
        rows: list[RenderableType] = [head]
        if self._best:
            rows.append(Text(f"best  {self._bests()}", style="green"))
        for number, (architecture, report) in sorted(self._running.items()):
            rows.append(Text(f"  #{number}  {architecture}  {self._state(report)}", style="dim", no_wrap=True))
        return Group(*rows)

    def _state(self, report: Report) -> str:
        if report.curve:
            accuracy = report.curve[-1].get("accuracy")
            shown = f", accuracy {human(accuracy, '%')}" if accuracy is not None else ""
            return f"epoch {len(report.curve)}/{self._epochs}{shown}"
        return ", ".join(f"{n} {human(m.value, _unit(n, ''))}" for n, m in report.measurements.items())


def say(console: Console | None, text: str) -> None:
    """A plain line, as long as it is."""
    if console is not None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def bar(console: Console | None, text: str) -> Iterator[Callable[[int, int], None] | None]:
    """What is told how much of how much is done: a bar on a terminal that appears with the first call, else lines."""
    if console is None:
        yield None
        return
    if not console.is_terminal:
        pause = _Pause()

        def line(done: int, total: int) -> None:
            if pause.over():
                say(console, f"{text}: {done}/{total}")

        yield line
        return
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = None

        def update(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = shown.add_task("", total=total)
            shown.update(task, completed=done, total=total)  # which is another one from files to images

        yield update


class _Pause:
    """Between two plain lines."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def over(self) -> bool:
        """Whether it is time for a line, which then begins the next pause."""
        if time.monotonic() - self._last < LINE_EVERY:
            return False
        self._last = time.monotonic()
        return True


def counted(reasons: Mapping[str, int]) -> str:
    """'12 duplicate, 3 params<=2M' for a line."""
    return ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1]))


def _unit(name: str, unit: str) -> str:
    """As `human` takes it."""
    return {"latency": "ms", "accuracy": "%"}.get(name, unit)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
