"""One candidate in words: everything its numbers are made of."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import lkspace
from lkspace.errors import UserError
from lkspace.quantity import human
from lkspace.report import candidate_text
from lkspace.scores.score import Measurement
from lkspace.study import Study

Make = Callable[..., Study]


def test_a_complete_candidate(make_study: Make, tmp_path: Path) -> None:
    study = make_study(tmp_path / "run", ["complete"])
    study.remeasured(0, {"latency": Measurement(5.4321, {"interval": [5.4, 5.5], "repeats": 99})})
    text, trial = candidate_text(study, 0), study.trial(0)
    assert text.startswith(f"trial 0  {trial.id}  complete, on the front\n  a reference point of the search space\n")
    rows = [line.split() for line in text.splitlines() if re.match(r"  \d +\d+ ", line)][:4]
    a = trial.architecture
    for stage, row in enumerate(rows):
        small = "-" if a.reparam[stage] is None else str(a.reparam[stage])
        expected = [stage + 1, (16, 8, 4, 2)[stage], a.blocks[stage], a.channels[stage], a.kernels[stage], small]
        assert row == [*map(str, expected), "yes" if a.shortcut[stage] else "no"]
    low, high = trial.measurements["latency"]["interval"]
    assert f"{human(trial.values['latency'], 'ms')} ({human(low, 'ms')} to {human(high, 'ms')})" in text
    assert "repeats 60, device two cores" in text
    assert "again at the end: 5.43 ms (5.4 ms to 5.5 ms)\n               repeats 99" in text
    assert "no promise for a long one" in text
    assert re.search(r"5 +75.0 % +1\n", text)  # the last epoch of the curve
    assert human(lkspace.params(a, classes=10)) in text
    assert human(lkspace.flops(a, size=64, classes=10)) in text
    assert "large kernel" in text
    assert "time: latency 1.1 s, accuracy 14 s" in text


def test_the_shares_of_the_parts_add_up(make_study: Make, tmp_path: Path) -> None:
    text = candidate_text(make_study(tmp_path / "run", ["complete"]), 0)
    shares = re.findall(r"([\d.]+)% +[\d.]+ ?[KMG]? +([\d.]+)%", text)
    assert len(shares) >= 5
    for column in (0, 1):
        assert sum(float(s[column]) for s in shares) == pytest.approx(100, abs=0.5)


def test_one_that_did_not_get_far(make_study: Make, tmp_path: Path) -> None:
    study = make_study(tmp_path / "run", ["failed", "running"])
    assert "trial 0" in candidate_text(study, 0)
    assert "failed, not on the front\n  because: the failed one" in candidate_text(study, 0)
    assert "accuracy   -" in candidate_text(study, 0)
    assert "running" in candidate_text(study, 1)


def test_no_such_candidate(make_study: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trial 7 in 'run': it has trials 0 to 0"):
        candidate_text(make_study(tmp_path / "run", ["complete"]), 7)


def test_a_value_that_was_not_finite(make_study: Make, tmp_path: Path) -> None:
    study = make_study(tmp_path / "run", ["diverged"], change=lambda _, m: m | {"latency": Measurement(float("nan"))})
    assert re.search(r"latency +-", candidate_text(study, 0))
