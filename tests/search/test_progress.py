import io

import pytest
from rich.console import Console

from lkspace.scores.score import Measurement
from lkspace.search import progress
from lkspace.search.evaluate import Report


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=160, color_system=None)


@pytest.fixture
def study(new_study, micro):
    study = new_study(budget=6)
    for architecture in list(micro.enumerate())[:3]:
        asked = study.given(micro.params_of(architecture), {v.name: v.choices for v in micro.variables})
        study.start(asked, architecture)
    study.reject(asked, "duplicate")
    study.finish(0, "complete", measurements={"params": Measurement(1500.0), "flops": Measurement(2e6)})
    study.finish(1, "diverged", "loss is nan")
    return study


def test_a_line_says_what_a_person_wants_to_know(study):
    shown = console(terminal=False)
    display = progress.Display(study, 6, shown, epochs=4)
    with display.shown():
        display.final()
    text = shown.file.getvalue()
    assert text.count("\n") == 1
    assert "2/6 trials; 1 diverged, 1 rejected; best params 1.5 K (#0), flops 2 M (#0); hypervolume " in text
    assert "time left unknown yet" in text


def test_lines_come_now_and_then_and_not_with_every_report(study, micro, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = console(terminal=False)
    display = progress.Display(study, 6, shown, epochs=4)
    for _ in range(100):
        clock[0] += 1.0
        display.reported(2, Report())
    assert shown.file.getvalue().count("\n") == 3


def test_time_left_follows_from_the_trials_that_ended_here(study, micro, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = console(terminal=False)
    display = progress.Display(study, 6, shown, epochs=4)
    display.started(2, micro.reference_points[0])
    study.finish(2, "complete", measurements={"params": Measurement(1.0), "flops": Measurement(2.0)})
    clock[0] += 40.0
    display.ended(2)
    assert "3/6 trials" in shown.file.getvalue()
    assert "2:00 left" in shown.file.getvalue()


def test_the_panel_shows_each_running_trial(study, micro):
    shown = console(terminal=True)
    display = progress.Display(study, 6, shown, epochs=4)
    display.started(2, micro.reference_points[0])
    display.reported(2, Report({"accuracy": Measurement(0.5)}, ({"accuracy": 0.25}, {"accuracy": 0.5})))
    shown.print(display._panel())
    text = shown.file.getvalue()
    assert "2/6 trials" in text
    assert "#2  B[1,1] C[8,16] K[3,3]" in text
    assert "epoch 2/4, accuracy 50.0 %" in text


def test_without_a_console_nothing_is_said_or_read(study, monkeypatch):
    monkeypatch.setattr(type(study), "trials", property(lambda self: pytest.fail("the study was read")))
    display = progress.Display(study, 6, None, epochs=4)
    with display.shown():
        display.reported(2, Report())
        display.final()


def test_a_bar_is_shown_only_when_there_is_something_to_do():
    shown = console(terminal=True)
    with progress.bar(shown, "decoding images") as update:
        update(1, 2)
    assert "decoding images" in shown.file.getvalue()
    silent = console(terminal=False)
    with progress.bar(silent, "decoding images") as update:
        update(1, 2)
    assert not silent.file.getvalue().strip()


def test_what_takes_long_says_how_far_it_is_in_a_file_too(monkeypatch):
    lines = console(terminal=False)
    now = iter([0.0, 10.0, 31.0, 31.0, 40.0, 62.0, 62.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.bar(lines, "training longer") as update:
        for done in range(1, 5):
            update(done, 4)
    assert lines.file.getvalue().splitlines() == ["training longer: 2/4", "training longer: 4/4"]
