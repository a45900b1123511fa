import math
import threading

import pytest

from lkspace import doctor, kernels
from lkspace.doctor import Line, core_quota, report, report_text
from lkspace.scores import pace
from lkspace.scores.quiet import Device


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_LOOK", 0.02)
    monkeypatch.setenv("LKSPACE_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def line(label):
    (found,) = [line for line in report() if line.label == label]
    return found


def test_report_says_what_the_issue_of_a_bug_would_be_asked_for(tmp_path):
    labels = [line.label for line in report()]
    for label in ("lkspace", "python", "torch", "ray", "optuna", "processor", "GPU", "operator", "latency, locked"):
        assert any(found.startswith(label) for found in labels)
    assert line("locks").value.startswith(str(tmp_path / "locks"))
    assert line("cache of data").value.startswith(str(tmp_path / "cache"))
    assert line("LKSPACE_CACHE").value == str(tmp_path / "cache")
    assert "GB free" in line("runs").value


def test_every_trouble_has_a_mend_and_only_trouble_has(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    assert line("no-such-package") == Line(
        "no-such-package", "missing", "warn", "python -m pip install no-such-package"
    )
    for found in report():
        assert (found.verdict == "warn") == bool(found.hint)


def test_text_marks_trouble_and_puts_the_mend_below(monkeypatch):
    lines = [Line("short", "fine"), Line("a longer label", "broken", "warn", "mend it " * 30)]
    monkeypatch.setattr(doctor, "report", lambda: lines)
    text = report_text().splitlines()
    assert text[0] == "  short           fine"
    assert text[1] == "! a longer label  broken"
    assert text[2].strip().startswith("-> mend it")
    assert text[-1] == "1 to look at, marked with !"
    assert max(map(len, text)) <= 110
    monkeypatch.setattr(doctor, "report", lambda: lines[:1])
    assert report_text() == "  short  fine"


def test_schemes_of_the_native_operator_are_told():
    if not kernels.native_available():
        pytest.skip("needs the native operator")
    found = line("operator's schemes")
    assert found.verdict == "ok"
    assert "by frequencies" in found.value
    assert "measured here" in found.value


def test_a_forced_scheme_is_told(monkeypatch):
    if not kernels.native_available():
        pytest.skip("needs the native operator")
    monkeypatch.setenv("LKSPACE_SCHEME", "direct")
    assert line("operator's schemes").value == "direct, as LKSPACE_SCHEME forces"


def test_missing_native_operator_says_why_and_how_to_get_it(monkeypatch):
    monkeypatch.setattr(kernels, "availability", lambda: {"native": "no compiler was found", "torch": ""})
    found = line("operator")
    assert found.verdict == "warn"
    assert "no compiler was found" in found.value
    assert "install a C++ compiler" in found.hint


@pytest.mark.parametrize("name", ["LKSPACE_KERNEL", "LKSPACE_ISA", "LKSPACE_SCHEME"])
def test_forced_operator_that_is_not_there_is_told(monkeypatch, name):
    if name != "LKSPACE_KERNEL" and not kernels.native_available():
        pytest.skip("needs the native operator")
    monkeypatch.setenv(name, "nonsense")
    found = line("operator")
    assert found.verdict == "warn"
    assert f"{name}=nonsense" in found.hint
    assert "nonsense" in report_text()


def test_search_in_progress_is_told():
    held, done = threading.Event(), threading.Event()

    def train():
        with Device("cpu").step():
            held.set()
            done.wait(60)

    thread = threading.Thread(target=train)
    thread.start()
    held.wait(60)
    try:
        found = line("latency, locked")
    finally:
        done.set()
        thread.join()
    assert found.verdict == "warn"
    assert "a search" in found.value


def test_pace_is_compared_with_the_standard(monkeypatch, tmp_path):
    assert "sets the standard" in line("pace").value
    pace.standard(1e3, 1, None)
    assert "0.00 times the standard" in line("pace").value
    monkeypatch.setenv("LKSPACE_KERNEL", "nonsense")
    assert "pace" not in [found.label for found in report()]


def test_unusable_folders_are_told_and_the_rest_still_stands(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LKSPACE_LOCKS", str(tmp_path / "file"))
    monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path / "file" / "cache"))
    found = {line.label: line for line in report()}
    assert "LKSPACE_LOCKS" in found["locks"].hint
    assert "LKSPACE_LOCKS" in found["latency, locked"].hint
    assert "LKSPACE_CACHE" in found["cache of data"].hint
    assert found["runs"].verdict == "ok"


def test_a_cache_in_a_home_that_nobody_has_is_told(monkeypatch):
    monkeypatch.setenv("LKSPACE_CACHE", "~nobody-here/cache")
    found = {line.label: line for line in report()}
    assert "no such home; set LKSPACE_CACHE to a full path" in found["cache of data"].hint


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, math.inf),
        ({"cpu_max": "max 100000\n"}, math.inf),
        ({"cpu_max": "150000 100000\n"}, 1.5),
        ({"cpu_max": "nonsense"}, math.inf),
        ({"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}, math.inf),
        ({"cpu__cpu_cfs_quota_us": "50000\n", "cpu__cpu_cfs_period_us": "100000\n"}, 0.5),
    ],
)
def test_core_quota_is_read_from_both_kinds_of_control_groups(tmp_path, files, cores):
    write(tmp_path, **files)
    assert core_quota(tmp_path) == cores


def test_quota_below_the_cores_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "core_quota", lambda: 0.5)
    assert line("core quota").verdict == "warn"
    monkeypatch.setattr(doctor, "core_quota", lambda: math.inf)
    assert "core quota" not in [line.label for line in report()]
