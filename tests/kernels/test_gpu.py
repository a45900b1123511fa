"""The GPU backend without a GPU: its kernels in Triton's interpreter, how a choice is made and remembered."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lkspace.kernels import availability

from .conftest import difference, reference

PROBE = """
import sys
sys.modules["triton"] = None  # to import it is an error; torch does without
import torch
from lkspace.kernels import availability, depthwise_conv2d
depthwise_conv2d(torch.ones(1, 2, 3, 3), torch.ones(2, 1, 3, 3))
print(any(name.startswith("lkspace.kernels.gpu.") for name in sys.modules), repr(availability()["gpu"]))
"""
CUDA = torch.device("cuda")
NO_COMPILER = (  # as Triton raises them: without gcc and clang, and without Python.h
    RuntimeError("Failed to find C compiler. Please specify via CC environment variable"),
    subprocess.CalledProcessError(1, ["gcc", "driver.c"]),
)


def test_without_a_gpu_triton_is_not_imported() -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("TRITON_INTERPRET", "LKSPACE_KERNEL")}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    found = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", *["'torch", "finds", "no", "GPU", "that", "it", "can", "use'"]]


def test_kernels_in_the_interpreter() -> None:
    """test_gpu_kernels.py in two processes whose Triton interprets; on a device those tests run by themselves."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("they run on the GPU")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        Path(__file__).with_name("test_gpu_kernels.py"),
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    half = "forward or nan"  # of the time
    runs = [
        subprocess.Popen([*command, "-k", part], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for part in (half, f"not ({half})")
    ]
    for run in runs:
        printed = run.communicate()[0].decode()
        assert run.returncode == 0, printed[-7000:]
        assert " passed" in printed


class TestChoice:
    """Timed once, then remembered: in the process, and on disk for the next one."""

    @pytest.fixture(autouse=True)
    def device(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        pytest.importorskip("triton")
        from lkspace.kernels.gpu import tuning
        from lkspace.kernels.gpu.choice import Choice
        from lkspace.kernels.gpu.problem import problem

        self.tuning, self.folder = tuning, tmp_path / "kernels"
        self.slow, self.fast = Choice("dense", (("BM", 64),)), Choice("dense", (("BM", 128),), warps=8, planar=True)
        self.torch = Choice("torch")
        self.problem = problem("forward", torch.ones(2, 3, 7, 7), torch.ones(3, 1, 5, 5))
        self.times = {self.slow: 3.0, self.fast: 1.0, self.torch: 2.0}
        self.timed: list[list[Choice]] = []
        self.capturing, self.name = False, "GPU A"

        def measured(offered: list[Choice], call: object, lacks: set[str]) -> dict[Choice, float]:
            self.timed.append(offered)
            return {choice: self.times[choice] for choice in offered}

        self.measured = tuning.measured
        monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path))
        monkeypatch.setattr(tuning, "measured", measured)
        monkeypatch.setattr(tuning, "candidates", lambda problem, device: [self.slow, self.fast, self.torch])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: self.name)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: self.capturing)
        tuning.forget()
        yield
        tuning.forget()

    def choose(self) -> object:
        return self.tuning.choose(self.problem, CUDA, lambda choice: lambda: None, lambda choice: None)

    def file(self) -> Path:
        (found,) = self.folder.glob("*.json")
        return found

    def test_a_small_problem_is_not_timed_unless_its_first_guess_cannot_be_compiled(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from lkspace.kernels.gpu.choice import Choice
        from lkspace.kernels.gpu.compiler import CannotCompile

        guess, large = Choice("mma"), dataclasses.replace(self.problem, n=2**18)
        monkeypatch.setattr(self.tuning, "candidates", lambda problem, device: [guess, self.torch])
        self.times[guess] = 5.0

        def choose(problem: object, prepare: object) -> object:
            self.tuning.forget()
            return self.tuning.choose(problem, CUDA, lambda choice: lambda: None, prepare)

        def refuse(choice: Choice) -> None:
            raise CannotCompile("no such architecture")

        assert choose(self.problem, lambda choice: None) == guess
        assert not self.timed
        assert choose(self.problem, refuse) == self.torch
        assert choose(large, lambda choice: None) == self.torch
        assert len(self.timed) == 2

    def test_a_small_problem_that_needs_copies_is_timed_where_that_is_possible(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from lkspace.kernels.gpu.choice import Choice

        guess = Choice("mma", planar=True)
        monkeypatch.setattr(self.tuning, "candidates", lambda problem, device: [guess, self.torch])
        self.times[guess] = 5.0
        self.capturing = True
        assert self.choose() == guess
        assert not self.timed
        self.capturing = False
        assert self.choose() == self.torch
        assert len(self.timed) == 1

    def failing(self, monkeypatch: pytest.MonkeyPatch, errors: dict[object, Exception]) -> object:
        """The choice where these candidates raise, the others take their times."""

        def call(choice: object) -> object:
            def run() -> float:
                if choice in errors:
                    raise errors[choice]
                return self.times[choice]  # type: ignore[index]

            return run

        monkeypatch.setattr(self.tuning, "measured", self.measured)
        monkeypatch.setattr(self.tuning, "seconds", lambda call, hopeless: call())
        return self.tuning.choose(self.problem, CUDA, call, lambda choice: None)

    def test_a_choice_made_while_memory_was_short_lasts_as_long_as_the_process(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.times[self.slow] = 1.5
        short = torch.OutOfMemoryError("something else has it for now")
        assert self.failing(monkeypatch, {self.fast: short}) == self.slow
        assert not list(self.folder.glob("*.json"))
        assert self.failing(monkeypatch, {}) == self.slow  # a choice does not change
        self.tuning.forget()
        assert self.failing(monkeypatch, {self.fast: short, self.slow: short}) == self.torch
        self.tuning.forget()
        assert self.failing(monkeypatch, {}) == self.fast
        assert self.file().exists()

    @pytest.mark.parametrize("error", NO_COMPILER, ids=["no compiler", "no headers"])
    def test_torch_is_chosen_without_a_c_compiler_but_not_for_the_next_process(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.failing(monkeypatch, {self.slow: error, self.fast: error}) == self.torch
        assert not list(self.folder.glob("*.json"))
        assert self.failing(monkeypatch, {}) == self.torch  # a choice does not change
        self.tuning.forget()
        assert self.failing(monkeypatch, {}) == self.fast

    def test_fastest_is_chosen_and_remembered(self) -> None:
        assert self.choose() == self.fast
        assert self.choose() == self.fast
        assert len(self.timed) == 1
        assert self.tuning.recorded("GPU A", self.problem) == {str(one): time for one, time in self.times.items()}
        self.tuning.forget()  # another process
        self.times[self.fast] = 9.0
        assert self.choose() == self.fast  # a choice does not change
        assert len(self.timed) == 1
        assert list(self.folder.iterdir()) == [self.file()]  # nothing unfinished is left

    def test_torch_is_chosen_where_it_is_faster(self) -> None:
        self.times[self.torch] = 0.5
        assert self.choose() == self.torch
        self.tuning.forget()
        assert self.choose() == self.torch

    @pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"key": 1}', "\x00\xff"])
    def test_damaged_file_is_timed_again(self, damage: str) -> None:
        self.choose()
        self.file().write_text(damage)
        self.tuning.forget()
        assert self.choose() == self.fast
        assert len(self.timed) == 2
        self.tuning.forget()
        assert self.choose() == self.fast
        assert len(self.timed) == 2

    def test_choice_that_no_longer_exists_is_timed_again(self) -> None:
        self.choose()
        record = json.loads(self.file().read_text())
        record["choice"]["tile"]["BM"] = 256
        self.file().write_text(json.dumps(record))
        self.tuning.forget()
        assert self.choose() == self.fast
        assert len(self.timed) == 2

    def test_other_devices_versions_and_problems_have_their_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.choose()
        self.tuning.forget()
        self.name = "GPU B"
        self.choose()
        monkeypatch.setattr(self.tuning.triton, "__version__", "9.9")
        self.tuning.forget()
        self.choose()
        compiles = self.tuning.compiler.available()
        monkeypatch.setattr(self.tuning.compiler, "available", lambda: not compiles)
        self.tuning.forget()
        self.choose()
        changes = [{"dtype": "bfloat16"}, {"n": 1}, {"direction": "input gradient"}, {"channels_last": True}]
        changes += [{"vector": 2}, {"grad_vector": 2}, {"grad_channels_last": True}]
        for change in changes:
            self.problem = dataclasses.replace(self.problem, **change)
            self.choose()
        assert len(self.timed) == len(list(self.folder.glob("*.json"))) == 4 + len(changes)

    def test_nothing_is_timed_while_a_graph_is_captured(self) -> None:
        self.capturing = True
        assert self.choose() == self.slow  # the first guess
        assert not self.timed
        self.capturing = False
        assert self.choose() == self.fast
        self.capturing = True
        assert self.choose() == self.fast
        self.tuning.forget()
        assert self.choose() == self.fast  # read from disk
        assert len(self.timed) == 1

    def test_folder_that_cannot_be_written_costs_only_time(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("LKSPACE_CACHE", str(tmp_path / "file"))
        assert self.choose() == self.fast
        self.tuning.forget()
        assert self.choose() == self.fast
        assert len(self.timed) == 2


class TestTimes:
    """Which candidates are timed, and what becomes of those that cannot run."""

    @pytest.fixture(autouse=True)
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("triton")
        from lkspace.kernels.gpu import tuning

        self.tuning, self.limits = tuning, list[float]()

        def seconds(call: object, hopeless: float) -> float:
            self.limits.append(hopeless)
            return float(call())  # type: ignore[operator]

        monkeypatch.setattr(tuning, "seconds", seconds)

    def test_candidates_are_held_against_the_fastest_so_far(self) -> None:
        from lkspace.kernels.gpu.choice import Choice

        offered = [Choice("dense"), Choice("taps"), Choice("torch")]
        times = dict(zip(offered, (1.0, 4.0, 2.0), strict=True))
        assert self.tuning.measured(offered, lambda choice: lambda: times[choice]) == times
        assert self.limits == [float("inf"), 3.0, 3.0]

    def test_torch_may_lack_the_memory_where_another_did_not(self) -> None:
        from lkspace.kernels.gpu.choice import Choice

        def call(choice: Choice) -> object:
            def run() -> float:
                if choice.path == "torch":
                    raise torch.OutOfMemoryError("its copy does not fit")
                return 1.0

            return run

        assert list(self.tuning.measured([Choice("dense"), Choice("torch")], call)) == [Choice("dense")]
        with pytest.raises(torch.OutOfMemoryError):
            self.tuning.measured([Choice("torch")], call)

    def test_a_tile_too_large_for_the_device_is_left_out(self) -> None:
        import triton

        from lkspace.kernels.gpu.choice import Choice

        def call(choice: Choice) -> object:
            def run() -> float:
                if choice.path != "torch":
                    raise triton.runtime.errors.OutOfResources(300_000, 232_448, "shared memory")
                return 1.0

            return run

        assert list(self.tuning.measured([Choice("dense"), Choice("torch")], call)) == [Choice("torch")]

    def test_a_bug_is_not_hidden(self) -> None:
        from lkspace.kernels.gpu.choice import Choice

        with pytest.raises(ZeroDivisionError):
            self.tuning.measured([Choice("dense"), Choice("torch")], lambda choice: lambda: 1 / 0)


@pytest.mark.parametrize("error", NO_COMPILER, ids=["no compiler", "no headers"])
def test_a_choice_that_was_never_tried_here_and_cannot_run_is_computed_by_torch(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guessed while a graph is captured, or timed by a process that had a compiler."""
    pytest.importorskip("triton")
    from lkspace.kernels.gpu import calls, paths, tuning
    from lkspace.kernels.gpu.choice import Choice

    def fail(*arguments: object) -> None:
        raise error

    torch.manual_seed(0)
    x, weight, grad = torch.randn(2, 3, 5, 7), torch.randn(3, 1, 3, 3), torch.randn(2, 3, 5, 7)
    monkeypatch.setattr(tuning, "choose", lambda *arguments: Choice("taps"))
    monkeypatch.setitem(paths._CONVOLUTIONS, "taps", fail)
    monkeypatch.setattr(paths.weight_gradient, "run", fail)
    wanted = reference(x, weight, None, grad)
    into_x, into_weight, _ = calls.backward(grad, x, weight, [True, True, False])
    assert difference(calls.forward(x, weight, None, ""), wanted["y"]) < 1e-5
    assert difference(into_x, wanted["x"]) < 1e-5
    assert difference(into_weight, wanted["weight"]) < 1e-5


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), torch.OutOfMemoryError("the user's to mend")], ids=repr)
def test_other_errors_of_a_choice_reach_the_user(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from lkspace.kernels.gpu import calls, paths, tuning
    from lkspace.kernels.gpu.choice import Choice

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(tuning, "choose", lambda *arguments: Choice("taps"))
    monkeypatch.setitem(paths._CONVOLUTIONS, "taps", fail)
    with pytest.raises(type(error)):
        calls.forward(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3), None, "")


def test_a_copy_whose_looks_are_all_that_counts_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from lkspace.kernels.gpu import mma, paths

    x = torch.empty(1, 1, 1, 1, dtype=torch.bfloat16).expand(2**34, 1, 128, 128)  # 2^49 bytes if it were copied
    weight, compiled = torch.empty(1, 1, 5, 5, dtype=torch.bfloat16), list[tuple[list[str], torch.device]]()
    monkeypatch.setattr(mma.compiler, "binary", lambda source, options, device: compiled.append((options, device)))
    paths.prepare(dataclasses.replace(mma.by_rows(1, 128, 1), planar=True), x, weight, False, "")
    paths.prepare_gradient(dataclasses.replace(mma.of_gradient(1, 2, 1, 5), planar=True), x, x, weight)
    assert len(compiled) == 2
    for options, device in compiled:
        assert "-DVECTOR=8" in options
        assert device == weight.device


def test_a_problem_says_how_its_tensors_lie() -> None:
    pytest.importorskip("triton")
    from lkspace.kernels.gpu.problem import problem

    x, weight = torch.empty(2, 3, 8, 8, dtype=torch.bfloat16), torch.empty(3, 1, 5, 5, dtype=torch.bfloat16)
    apart = torch.empty(x.numel() + 2, dtype=x.dtype)[2:].view_as(x)
    last = x.contiguous(memory_format=torch.channels_last)
    posed = problem("weight gradient", x, weight, x)
    assert problem("weight gradient", x, weight) == posed
    assert problem("weight gradient", apart, weight, x) == dataclasses.replace(posed, vector=2)
    assert problem("weight gradient", x, weight, apart) == dataclasses.replace(posed, grad_vector=2)
    assert problem("weight gradient", x, weight, last) == dataclasses.replace(
        posed, grad_channels_last=True, grad_vector=1
    )
    assert problem("forward", apart, weight) != problem("forward", x, weight)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_one_value_seen_many_times_is_a_gradient_as_any_other(
    layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from lkspace.kernels.gpu import calls, tuning
    from lkspace.kernels.gpu.choice import Choice
    from lkspace.kernels.gpu.problem import Problem

    def choose(posed: Problem, *others: object) -> Choice:
        chosen.append(posed)
        return Choice("torch")

    chosen: list[Problem] = []
    monkeypatch.setattr(tuning, "choose", choose)
    x, weight = torch.ones(2, 3, 4, 8).contiguous(memory_format=layout), torch.ones(3, 1, 3, 3)
    for grad in (torch.ones_like(x), torch.ones(()).expand_as(x), torch.ones(2, 1, 4, 8).expand_as(x)):
        calls.backward(grad, x, weight, [True, True, True])
    assert chosen[:2] == chosen[2:4] == chosen[4:]
    assert chosen[0].channels_last == chosen[1].grad_channels_last == (layout == torch.channels_last)


def test_reason_for_no_gpu_is_told() -> None:
    if torch.cuda.is_available():
        assert availability()["gpu"] == ""
    elif os.environ.get("TRITON_INTERPRET") != "1":
        assert availability()["gpu"] == "torch finds no GPU that it can use"
