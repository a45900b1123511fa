"""The choice of a scheme: by the model, whatever the number of threads, fitted once for all processes of a machine."""

import json
import multiprocessing
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lkspace.errors import UserError
from lkspace.kernels import calibration, depthwise_conv2d, library, native_backend, schemes
from lkspace.kernels.calibration import coefficients, file_of, fitted
from lkspace.kernels.schemes import Shape, cheaper, inside, predicted, scheme_for, work

pytestmark = pytest.mark.usefixtures("native")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing is known of this machine yet."""
    monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path))
    for variable in (schemes.VARIABLE, library.ISA_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    cheaper.cache_clear()
    yield tmp_path
    cheaper.cache_clear()


def invented(direct: float, frequency: float) -> dict[str, list[float]]:
    """Coefficients of a machine on which only the first terms cost something."""
    return {name: [direct if name.startswith("direct") else frequency, 0.0] for name in calibration._names()}


def write(seconds: object) -> Path:
    path = file_of(library.selected())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seconds": seconds}))
    return path


def forget() -> None:
    """As a new process would."""
    calibration._looked_up.cache_clear()
    cheaper.cache_clear()


@pytest.mark.parametrize(("direct", "frequency", "scheme"), [(1.0, 1e-9, "frequency"), (1e-9, 1.0, "direct")])
@pytest.mark.parametrize("operation", calibration.OPERATIONS)
def test_the_scheme_of_less_predicted_time(direct: float, frequency: float, scheme: str, operation: str) -> None:
    write(invented(direct, frequency))
    x, weight = torch.ones(2, 8, 20, 20), torch.ones(8, 1, 13, 13)
    assert scheme_for(operation, x, weight) == scheme


def test_small_kernels_are_direct_and_ask_nobody(own_cache: Path) -> None:
    assert scheme_for("convolution", torch.ones(2, 8, 200, 200), torch.ones(8, 1, 7, 7)) == "direct"
    assert scheme_for("convolution", torch.ones(2, 8, 4, 4), torch.ones(8, 1, 31, 31)) == "direct"  # 7 taps reach it
    assert not any(own_cache.rglob("*"))


def test_forcing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.ones(2, 8, 5, 5), torch.ones(8, 1, 3, 3)
    for scheme in ("direct", "frequency"):
        monkeypatch.setenv(schemes.VARIABLE, scheme)
        assert scheme_for("convolution", x, weight) == scheme
    monkeypatch.setenv(schemes.VARIABLE, "winograd")
    with pytest.raises(UserError, match="LKSPACE_SCHEME=winograd: no such scheme; known: direct, frequency"):
        depthwise_conv2d(x, weight)


def test_every_operation_is_computed_by_the_chosen_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the backend asks for, and that the same answer comes for every number of threads."""
    asked = []

    def ask(operation: str, x: torch.Tensor, weight: torch.Tensor) -> str:
        asked.append(operation)
        return "frequency"

    monkeypatch.setattr(native_backend, "scheme_for", ask)
    x, weight = torch.randn(2, 8, 12, 12), torch.randn(8, 1, 9, 9)
    native_backend.forward(x, weight, None)
    for wanted in ((True, False, False), (False, True, True), (True, True, False), (False, False, True)):
        native_backend.backward(x, x, weight, wanted)
    assert asked == ["convolution", "convolution", "weight gradient", "both gradients"]


def test_kept_on_disk_and_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    isa = library.selected()
    first = coefficients(isa)
    assert file_of(isa).is_file()
    forget()
    monkeypatch.setattr(calibration, "measure", lambda isa: pytest.fail("measured again"))
    assert coefficients(isa) == first


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"seconds": 3}',
        '{"seconds": {"direct convolution": [1, 2]}}',
        json.dumps({"seconds": invented(float("nan"), 1.0)}),
        json.dumps({"seconds": invented(-1.0, 1.0)}),
        json.dumps({"seconds": dict.fromkeys(calibration._names(), "12")}),
    ],
)
def test_a_broken_file_is_measured_anew(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    isa, right = library.selected(), invented(2.0, 3.0)
    path = write(None)
    path.write_text(content)
    monkeypatch.setattr(calibration, "measure", lambda isa: right)
    assert coefficients(isa) == right
    forget()
    monkeypatch.setattr(calibration, "measure", lambda isa: pytest.fail("measured again"))
    assert coefficients(isa) == right


def test_without_a_home_each_process_measures_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LKSPACE_CACHE", "~nobody-here/cache")
    monkeypatch.setattr(calibration, "measure", lambda isa: invented(2.0, 3.0))
    assert coefficients(library.selected()) == invented(2.0, 3.0)
    assert "cannot be written" in calibration.scheme_summary()


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(calibration, "measure", lambda isa: invented(2.0, 3.0))
    assert coefficients(library.selected()) == invented(2.0, 3.0)
    assert "cannot be written" in calibration.scheme_summary()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited for a lock that there is not"))
    with calibration._alone(tmp_path / "cpu.json"):
        pass


def test_measures_whatever_the_callers_defaults_are() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = calibration.measure(library.selected())
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(min(pair) >= 0 for pair in found.values())


def report(queue: "multiprocessing.Queue[dict[str, list[float]]]") -> None:
    queue.put(coefficients(library.selected()))


def test_processes_that_start_at_once_agree() -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[dict[str, list[float]]] = context.Queue()
    workers = [context.Process(target=report, args=(queue,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert found[0] == found[1] == found[2]
    assert not list(file_of(library.selected()).parent.glob("*.new"))


def test_summary_names_the_crossover() -> None:
    write(invented(1e-9, 1.0))
    assert "never on 14 px, never on 28 px, never on 56 px" in calibration.scheme_summary()
    write(invented(1.0, 1e-9))
    forget()
    assert "from K=9 on 14 px, from K=9 on 28 px, from K=9 on 56 px (measured here" in calibration.scheme_summary()


def test_fit_finds_what_the_times_were_made_of() -> None:
    generator = random.Random(0)
    terms = [(generator.uniform(1, 1000), generator.uniform(1, 1000)) for _ in range(5)]
    for a, b in ((2.0, 0.5), (0.0, 3.0), (4.0, 0.0)):
        assert fitted([((p, q), a * p + b * q) for p, q in terms]) == pytest.approx([a, b], abs=1e-9)
    assert min(fitted([((p, q), p - 0.2 * q) for p, q in [(1.0, 1.0), (5.0, 1.0), (9.0, 30.0)]])) == 0.0


@pytest.mark.parametrize(("size", "kernel"), [(1, 1), (5, 3), (5, 9), (6, 5), (9, 17)])
def test_taps_inside_the_map(size: int, kernel: int) -> None:
    counted = sum(0 <= i + t - kernel // 2 < size for i in range(size) for t in range(kernel))
    assert inside(size, kernel) == counted


def test_more_work_never_takes_less_time() -> None:
    costs = invented(1.0, 1.0)
    for scheme in ("direct", "frequency"):
        for operation in calibration.OPERATIONS:
            less = predicted(costs, scheme, operation, Shape(2, 20, 20, 13, 13))
            assert predicted(costs, scheme, operation, Shape(4, 20, 20, 13, 13)) > less
    assert work("frequency", "both gradients", Shape(2, 20, 20, 13, 13)) < (
        2 * work("frequency", "convolution", Shape(2, 20, 20, 13, 13))[0],
        0.0,
    )


def test_transforms_are_large_enough_and_of_small_factors() -> None:
    for least in range(1, 200):
        points = library.transform_points(least)
        left = points
        for factor in (2, 3, 5):
            while left % factor == 0:
                left //= factor
        assert left == 1
        assert points >= least
        assert library.transform_cost(points) > 0
    assert library.transform_cost(7) == 0
