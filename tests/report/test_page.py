"""The page in a browser without a network: what it shows against an independent computation, and every odd study."""

import errno
import json
import re
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lkspace.errors import RunError
from lkspace.quantity import Bound
from lkspace.report import write_page
from lkspace.report.page import page_data
from lkspace.scores.score import Measurement
from lkspace.study import Study
from lkspace.study.record import Objective
from lkspace.study.trust import Longer

Make = Callable[..., Study]
OUTCOMES = ["complete"] * 14 + ["infeasible", "failed", "diverged", "stopped", "complete", "running"]


class View:
    """An opened page; every request to a network and every line on the console ends the test."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("console", lambda m: self.wrong.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda e: self.wrong.append(str(e)))
        page.on(
            "request", lambda r: self.wrong.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else 0
        )

    def open(self, path: Path) -> "View":
        self.page.goto(path.as_uri())
        self.page.wait_for_function("window.__lk && window.__lk.ready")
        return self

    def lk(self, name: str) -> Any:
        return self.page.evaluate(f"window.__lk.{name}")

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def choose(self, side: str, name: str) -> None:
        self.page.select_option(f"#{side}", label=name)

    def numbers(self) -> list[int]:
        """Trials in the rows of the table, as shown."""
        return [
            int(n)
            for n in self.page.evaluate(
                "[...document.querySelectorAll('#candidates tbody tr')].map(r => r.dataset.number)"
            )
        ]

    def click_point(self, number: int) -> None:
        """Click where the figure has drawn the trial."""
        at = self.page.evaluate(
            """number => {
              const figure = document.getElementById("scatter");
              figure.scrollIntoView();
              const box = figure.getBoundingClientRect();
              const { xaxis, yaxis } = figure._fullLayout;
              for (const trace of figure.data) {
                const i = (trace.customdata ?? []).indexOf(number);
                const place = (axis, value) => axis._offset + axis.d2p(value);
                if (i >= 0) return [box.x + place(xaxis, trace.x[i]), box.y + place(yaxis, trace.y[i])];
              }
            }""",
            number,
        )
        self.page.mouse.move(*at)
        self.page.mouse.down()
        self.page.mouse.up()


@pytest.fixture
def view(browser: Any) -> Iterator[View]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, offline=True)
    context.set_default_timeout(120_000)  # milliseconds; a busy machine is no failure
    opened = View(context.new_page())
    yield opened
    context.close()
    assert opened.wrong == []


@pytest.fixture(scope="module")
def study(make_study: Make, tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = make_study(tmp_path_factory.mktemp("runs") / "demo", OUTCOMES, constraints=[Bound("latency", "<=", 12.0)])
    made.remeasured(made.front()[0].number, {"latency": Measurement(5.4321, {"interval": [5.4, 5.5]})})
    return made


@pytest.fixture(scope="module")
def written(study: Study) -> Path:
    assert study.folder is not None
    return write_page(study, study.folder / "front.html")


def brute_front(study: Study, names: list[str]) -> set[int]:
    """Numbers of the trials that no other one dominates in these objectives; O(n^2), nothing shared with the page."""
    signs = [1 if o.direction == "minimize" else -1 for n in names for o in study.objectives if o.name == n]
    costs = {
        t.number: [s * t.values[n] for s, n in zip(signs, names, strict=True)]
        for t in study.trials
        if t.outcome == "complete" and t.feasible
    }
    rows = np.array(list(costs.values())).reshape(len(costs), len(names))
    dominated = [bool(((rows <= row).all(axis=1) & (rows < row).any(axis=1)).any()) for row in rows]
    return {number for number, beaten in zip(costs, dominated, strict=True) if not beaten}


def test_front_of_any_pair(view: View, written: Path, study: Study) -> None:
    view.open(written)
    assert set(view.lk("overall")) == brute_front(study, ["accuracy", "flops", "latency"])
    for x, y in permutations(["accuracy", "flops", "latency"], 2):
        view.choose("x", x)
        view.choose("y", y)
        assert set(view.lk("front")) == brute_front(study, [x, y])
        lines = "document.getElementById('scatter').data.filter(t => t.mode === 'lines').map(t => [t.x, t.y])"
        signs = [1 if name != "accuracy" else -1 for name in (x, y)]
        across, up = ([s * v for v in line] for s, line in zip(signs, view.page.evaluate(lines)[0], strict=True))
        assert across == sorted(across)
        assert up == sorted(up, reverse=True)


def test_what_ended_otherwise_is_drawn_where_both_values_are_known(view: View, written: Path, study: Study) -> None:
    view.open(written)
    view.choose("x", "latency")
    view.choose("y", "flops")
    drawn = view.page.evaluate("document.getElementById('scatter').data.flatMap(t => t.customdata ?? [])")
    assert sorted(drawn) == [t.number for t in study.trials if t.outcome != "running"]
    assert "1 trial without both values" in view.text("#front-caption")


def test_choosing_the_other_axis_swaps_them(view: View, written: Path) -> None:
    view.open(written)
    before = (view.page.input_value("#x"), view.page.input_value("#y"))
    view.choose("x", "accuracy")
    assert (view.page.input_value("#y"), view.page.input_value("#x")) == before


def test_scatter_table_and_card_are_one_selection(view: View, written: Path, study: Study) -> None:
    view.open(written)
    assert view.lk("selected") is None
    assert "Choose a point" in view.text("#card")
    number = view.lk("front")[1]
    view.click_point(number)
    assert view.lk("selected") == number
    assert view.page.evaluate("document.getElementById('scatter').layout.annotations[0].text") == f"<b>{number}</b>"
    card, trial = view.text("#card"), study.trial(number)
    assert f"Trial {number} {trial.id}" in card
    target = "replknet" if all(trial.architecture.shortcut) and trial.architecture.stem_stride == 4 else "json"
    assert f"lkspace export {study.folder} {number} --to {target}" in card
    row, end = view.page.inner_text("#card tr:has-text('accuracy')"), view.page.text_content("#card svg.curve text")
    assert row.split() == ["accuracy", *end.split()]
    for kernel in trial.architecture.kernels:
        assert str(kernel) in card
    view.page.click("#card summary")
    assert "repeats 60, device two cores" in view.text("#card")
    assert view.page.inner_text("#candidates tr.selected td:first-child") == str(number)
    row = view.page.locator("#candidates tbody tr").nth(3)
    row.click()
    assert view.lk("selected") == view.numbers()[3] != number
    assert view.text("#live").startswith(f"Trial {view.numbers()[3]} selected")
    view.page.keyboard.press("Escape")
    assert view.lk("selected") is None


def test_the_keyboard_is_enough(view: View, written: Path) -> None:
    view.open(written)
    view.page.focus("#candidates tbody tr:nth-child(2)")
    view.page.keyboard.press("Enter")
    assert view.lk("selected") == view.numbers()[1]
    view.page.focus("#candidates thead th:nth-child(1) button")
    for order in ("ascending", "descending"):
        view.page.keyboard.press("Enter")
        assert view.page.get_attribute("#candidates thead th:nth-child(1)", "aria-sort") == order


def test_ticks_say_where_they_are_however_near(view: View, written: Path) -> None:
    view.open(written)
    view.page.evaluate("Plotly.relayout('scatter', {'yaxis.range': [0.951, 0.962], 'yaxis.nticks': 8})")
    ticks = view.page.evaluate("[...document.querySelectorAll('#scatter .ytick text')].map((t) => t.textContent)")
    assert len(ticks) > 3
    assert len(set(ticks)) == len(ticks)
    assert any("." in tick for tick in ticks)
    assert all(95.1 <= float(tick.removesuffix("%")) <= 96.2 for tick in ticks)


def test_sorting_puts_missing_values_last_both_ways(view: View, written: Path, study: Study) -> None:
    view.open(written)
    values = {t.number: t.values.get("accuracy") for t in study.trials}
    known = sorted(v for v in values.values() if v is not None)
    button = view.page.get_by_role("button", name="accuracy", exact=True)
    for expected in (known, known[::-1]):
        button.click()
        shown = [values[n] for n in view.numbers()]
        assert shown == expected + [None] * (len(values) - len(known))


def test_it_says_what_longer_trainings_said(view: View, make_study: Any, tmp_path: Path) -> None:
    study = make_study(tmp_path / "verified", ["complete"] * 4)
    study = Study.open(study.folder, writable=True)
    for trial in study.trials:
        for seed in range(2):
            study.trained_longer(trial.number, Longer(20, seed, 0.5 + 0.1 * trial.number + 0.01 * seed, 1.0))
    view.open(write_page(study, tmp_path / "page.html"))
    assert f"Verified: {study.trust().text}." in view.text("#note")
    front = len(study.front())
    assert f"4 candidates, {front} of the front's {front}, trained for 20 epochs with 2 seeds" in view.text("#note")


def test_what_it_says(view: View, written: Path, study: Study) -> None:
    view.open(written)
    body = view.text("body")
    for what in (
        "It was not verified by longer ones",
        "lkspace search --budget 20",
        "digits, 64 px",
        "a processor",
        "torch 2.13",
    ):
        assert what in body
    for what in ("accuracy 10.0 %", "flops 300 M", "latency 12 ms", "fixed before the first trial"):
        assert what in view.text("#history-caption")
    for outcome, n in study.counts().items():
        assert re.search(rf"\b{n}\s+{outcome}\b", view.text("#outcomes"))
    assert "latency again" in view.text("#candidates thead")
    assert "5.43 ms" in view.text("#candidates tbody")
    hover = view.page.evaluate("document.getElementById('scatter').data.flatMap(t => t.hovertext ?? []).join()")
    trial = study.front()[0]
    assert trial.id in hover
    assert f"K[{','.join(map(str, trial.architecture.kernels))}]" in hover
    assert re.search(r"latency [\d.]+ ms \([\d.]+ ms to [\d.]+ ms\), again 5.43 ms", hover)


def test_the_filter_and_its_numbers(view: View, written: Path, study: Study) -> None:
    view.open(written)
    for choice in ("front", "failed", "infeasible", "all"):
        view.page.select_option("#filter", choice)
        expected = {
            "front": {t.number for t in study.front()},
            "failed": {t.number for t in study.trials if t.outcome == "failed"},
            "infeasible": {t.number for t in study.trials if not t.feasible},
            "all": {t.number for t in study.trials},
        }[choice]
        assert set(view.numbers()) == expected != set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_stand_out_in_both_schemes(browser: Any, written: Path, scheme: str) -> None:
    """WCAG 1.4.11: at least 3:1 between a mark and what it lies on; 4.5:1 for text (1.4.3)."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(written.as_uri())
    style = "getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"

    def luminance(name: str) -> float:
        text = page.evaluate(style.format(name)).lstrip("#")
        parts = [int(text[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    for mark in ("front", "dominated", "infeasible", "selected"):
        assert contrast(mark, "panel") >= 3, mark
    for text, under in (("text", "page"), ("text", "panel"), ("quiet", "panel"), ("text", "note"), ("quiet", "page")):
        assert contrast(text, under) >= 4.5, (text, under)
    page.close()


# Odd studies.


def same(value: float) -> Callable[[int, dict[str, Measurement]], dict[str, Measurement]]:
    return lambda _, m: m | {"flops": Measurement(value)}


def tied(i: int, measurements: dict[str, Measurement]) -> dict[str, Measurement]:
    return {name: Measurement(m.value if i > 1 else 0.5) for name, m in measurements.items()}


ODD: dict[str, dict[str, Any]] = {
    "no trial": {"outcomes": []},
    "one trial": {"outcomes": ["complete"]},
    "two trials": {"outcomes": ["complete", "complete"]},
    "one running": {"outcomes": ["running"]},
    "all failed": {"outcomes": ["failed", "diverged"]},
    "all infeasible": {"outcomes": ["complete"] * 4, "constraints": [Bound("latency", "<=", 1e-3)]},
    "constant objective": {"outcomes": ["complete"] * 4, "change": same(1e8)},
    "an objective of 0": {"outcomes": ["complete"] * 3, "change": same(0.0)},
    "ties": {"outcomes": ["complete"] * 4, "change": tied},
    "one objective": {"outcomes": ["complete"] * 4, "objectives": [Objective("accuracy", "%", "maximize")]},
}


@pytest.mark.parametrize("kind", list(ODD))
def test_odd_studies_are_shown_without_a_word_on_the_console(
    view: View, make_study: Make, tmp_path: Path, kind: str
) -> None:
    study = make_study(tmp_path / "odd", **ODD[kind])
    view.open(write_page(study, tmp_path / "page.html"))
    front = view.lk("front")
    names = [o.name for o in study.objectives]
    expected = brute_front(study, names if len(names) == 1 else ["latency", "accuracy"])
    assert set(front) == expected
    assert len(front) == len(expected)
    assert len(view.numbers()) == len(study.trials)
    if view.numbers():
        view.page.locator("#candidates tbody tr").first.click()
        assert view.lk("selected") == view.numbers()[0]
        if front:
            view.click_point(front[0])
            assert view.lk("selected") in front
    view.page.locator("#log-x").set_checked(True, force=True) if view.page.is_enabled("#log-x") else None


def test_a_log_axis_is_not_offered_where_a_value_is_0(view: View, make_study: Make, tmp_path: Path) -> None:
    study = make_study(tmp_path / "zero", ["complete"] * 3, change=same(0.0))
    view.open(write_page(study, tmp_path / "page.html"))
    assert view.page.is_enabled("#log-x")
    view.choose("x", "flops")
    assert not view.page.is_enabled("#log-x")


def test_five_thousand_trials(view: View, many: Study, tmp_path: Path) -> None:
    view.open(write_page(many, tmp_path / "page.html"))
    assert set(view.lk("front")) == brute_front(many, ["latency", "accuracy"])
    assert len(view.numbers()) == 200
    last = many.trials[-1].number
    view.click_point(last)
    assert view.lk("selected") in view.numbers()
    view.page.get_by_role("button", name="Show all 5,000").click()
    assert len(view.numbers()) == 5000


EVIL = "</script><img src=x onerror=alert(1)><a href='http://x'>z</a><!-- {{script}} & 'q' \"d\" \\"


def test_names_are_text_and_never_markup(view: View, make_study: Make, tmp_path: Path) -> None:
    study = make_study(
        tmp_path / "evil", ["complete", "failed"], name=EVIL, change=lambda _, m: m | {EVIL: Measurement(1.0)}
    )
    given = study.given(None, {})
    study.reject(given, EVIL)
    number = study.start(given, study.trials[0].architecture)
    study.finish(number, "failed", EVIL, {EVIL: Measurement(1.0), "latency": Measurement(1.0)})
    path = write_page(study, tmp_path / "page.html")
    view.open(path)
    assert view.text("#title") == " ".join(EVIL.split())
    assert view.page.title() == " ".join(EVIL.split()) + " · lkspace"
    assert view.page.locator("img").count() == 0
    assert "onerror=alert(1)" in view.text("#candidates")
    view.page.locator(f"#candidates tr[data-number='{number}']").click()
    assert "onerror=alert(1)" in view.text("#card")
    view.click_point(0)
    view.page.wait_for_selector("#scatter .hoverlayer .hovertext")
    assert "<img src=x onerror=alert(1)><a href='http://x'>z</a>" in str(view.page.text_content("#scatter .hoverlayer"))
    head = path.read_text(encoding="utf-8").split('id="data">')
    assert len(head) == 2
    assert json.loads(head[1].split("</script>")[0]) == json.loads(json.dumps(page_data(study)))


# Writing.


def test_the_file_is_whole_or_the_old_one(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new folder" / "front.html"
    assert write_page(study, target) == target
    before = target.read_text(encoding="utf-8")

    def full(self: Path, *_: Any, **__: Any) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match="no room left"):
        write_page(study, target)
    assert target.read_text(encoding="utf-8") == before
    assert [p.name for p in target.parent.iterdir()] == ["front.html"]


def test_it_names_nothing_on_a_network(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    ours = text[: text.index("plotly.js v")] if "plotly.js v" in text else text[:20000]
    assert not re.search(r"(src|href)=\"(?!data:)", ours)
    assert "default-src 'none'" in ours
