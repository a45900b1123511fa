import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lkspace.errors import RunError, UserError
from lkspace.scores import quiet
from lkspace.scores.quiet import Device, lock_folder

needs_proc_locks = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux's /proc/locks")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LKSPACE_LOCKS", str(tmp_path / "locks"))
    return tmp_path / "locks"


class Other:
    """Another process that enters and leaves a device's locks when told to."""

    script = """
import os, sys
from lkspace.errors import RunError
from lkspace.scores.quiet import Device
for line in sys.stdin:
    device, kind = line.split()
    print("trying", flush=True)
    if kind == "try":
        try:
            Device(device).exclusive(timeout=0).__enter__()
        except RunError:
            print("busy", flush=True)
        continue
    with getattr(Device(device), kind)():
        print("in", flush=True)
        if sys.stdin.readline() == "fork\\n":
            if os.fork() == 0:
                sys.stdin.readline()
                os._exit(0)
            print("forked", flush=True)
            sys.stdin.readline()
    print("out", flush=True)
"""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def say(self, line):
        self.process.stdin.write(line + "\n")

    def expect(self, *lines):
        for line in lines:
            assert self.process.stdout.readline().strip() == line

    def enter(self, device, kind):
        self.say(f"{device} {kind}")
        self.expect("trying", "in")

    def leave(self):
        self.say("leave")
        self.expect("out")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def others():
    made = [Other(), Other()]
    yield made
    for other in made:
        other.kill()
        other.process.stdin.close()
        other.process.stdout.close()


def waits(pid, path):
    """Whether the process is blocked on a lock of the file, as the kernel sees it."""
    inode = f":{path.stat().st_ino}"
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(row[1] == "->" and int(row[5]) == pid and row[6].endswith(inode) for row in rows)


def test_steps_of_several_processes_go_on_together(others):
    others[0].enter("cpu", "step")
    others[1].enter("cpu", "step")
    with Device("cpu").step():
        pass


@pytest.mark.parametrize("kind", ["step", "exclusive"])
def test_measurement_is_alone(others, kind):
    others[0].enter("cpu", kind)
    with pytest.raises(RunError, match="still in use"), Device("cpu").exclusive(timeout=0.01):
        pass
    others[0].leave()
    with Device("cpu").exclusive(timeout=0.01) as waited:
        assert 0 <= waited < 1


def test_devices_are_independent(others):
    others[0].enter("cpu", "exclusive")
    others[1].enter("mps:0", "exclusive")
    with Device("mps:1").exclusive(timeout=0.01):
        pass


@needs_proc_locks
def test_no_step_begins_while_a_measurement_waits(others, folder):
    measurer, trainer = others
    with Device("cpu").step():
        measurer.say("cpu exclusive")
        measurer.expect("trying")
        (lock,) = folder.glob("cpu-*.lock")
        while not waits(measurer.process.pid, lock):
            pass
        trainer.say("cpu step")
        trainer.expect("trying")
        while not waits(trainer.process.pid, lock.with_suffix(".turnstile")):
            pass
    measurer.expect("in")
    assert waits(trainer.process.pid, lock.with_suffix(".turnstile"))
    measurer.leave()
    trainer.expect("in")


def train(number, marks):
    # Steps back to back, marked while they last, until the byte behind the trainers' own is set.
    with open(marks, "r+b", buffering=0) as file:
        while os.pread(file.fileno(), 1, 3) == b"\0":
            with Device("cpu").step():
                os.pwrite(file.fileno(), b"\1", number)
                sum(range(20_000))
                os.pwrite(file.fileno(), b"\0", number)


def test_stream_of_trainers_neither_starves_nor_disturbs_a_measurement(tmp_path):
    marks = tmp_path / "marks"
    marks.write_bytes(bytes(4))
    context = multiprocessing.get_context("spawn")
    trainers = [context.Process(target=train, args=(n, str(marks)), daemon=True) for n in range(3)]
    for trainer in trainers:
        trainer.start()
    try:
        while marks.read_bytes()[:3] == bytes(3):
            pass
        for _ in range(50):
            with Device("cpu").exclusive(timeout=60):
                assert all(marks.read_bytes() == bytes(4) for _ in range(20))
    finally:
        marks.write_bytes(b"\0\0\0\1")
        for trainer in trainers:
            trainer.join()
    assert [t.exitcode for t in trainers] == [0, 0, 0]


@pytest.mark.parametrize("kind", ["step", "exclusive"])
def test_locks_of_a_killed_process_vanish(others, kind):
    others[0].enter("cpu", kind)
    others[0].kill()
    with Device("cpu").exclusive(timeout=10):
        pass


@pytest.mark.parametrize("kind", ["step", "exclusive"])
def test_forked_child_does_not_keep_the_locks_of_a_killed_parent(others, kind):
    others[0].enter("cpu", kind)
    others[0].say("fork")
    others[0].expect("forked")  # the child lives until the pipe closes
    others[0].kill()
    with Device("cpu").exclusive(timeout=10):
        pass


def test_forked_child_can_lock_and_leave_without_freeing_the_parent(others):
    with Device("cpu").step():
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with Device("cpu").step():  # not re-entrant: the parent's hold is not the child's
                    os.write(writer, b"in" if len(quiet._holds) == 1 else b"no")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(reader, 2) == b"in"
        others[0].say("cpu try")
        others[0].expect("trying", "busy")
    others[0].enter("cpu", "exclusive")
    os.close(reader)
    os.close(writer)


def test_threads_count_like_processes():
    together = threading.Barrier(3, timeout=60)
    done = threading.Event()
    errors = []

    def step():
        with Device("cpu").step():
            together.wait()
            done.wait(60)

    def measure():
        together.wait()
        try:
            with Device("cpu").exclusive(timeout=0.01):
                pass
        except RunError as error:
            errors.append(error)
        done.set()

    threads = [threading.Thread(target=target) for target in (step, step, measure)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    with Device("cpu").exclusive(timeout=0.01):
        pass


def test_nesting_in_one_thread(others):
    device = Device("cpu")
    with device.exclusive(), Device("cpu").exclusive(), device.step(), device.step():
        pass
    with device.step(), device.step():
        with pytest.raises(RuntimeError, match="inside a training step"), device.exclusive():
            pass
        others[0].enter("cpu", "step")
        others[0].leave()
    others[0].enter("cpu", "exclusive")  # everything was given back


def test_released_when_the_step_raises(others):
    with pytest.raises(ZeroDivisionError), Device("cpu").step():
        raise ZeroDivisionError
    others[0].enter("cpu", "exclusive")


def test_failed_entry_leaves_nothing_held(others):
    others[0].enter("cpu", "exclusive")
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with pytest.raises(RunError), Device("cpu").exclusive(timeout=0):
            pass
    assert len(os.listdir("/dev/fd")) == before
    assert not quiet._holds


def test_folder_deleted_meanwhile_is_made_again(folder):
    with Device("cpu").step():
        pass
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    with Device("cpu").exclusive(timeout=0):
        assert len(list(folder.iterdir())) == 2


def test_unusable_folder_names_the_mend(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LKSPACE_LOCKS", str(tmp_path / "file"))
    with pytest.raises(RunError, match=r"file: .*set LKSPACE_LOCKS"), Device("cpu").step():
        pass


def test_lock_file_that_is_a_link_is_refused(folder, tmp_path):
    with Device("cpu").step():
        pass
    (lock,) = folder.glob("cpu-*.lock")
    lock.unlink()
    lock.symlink_to(tmp_path / "victim")
    with pytest.raises(RunError, match="LKSPACE_LOCKS"), Device("cpu").step():
        pass
    assert not (tmp_path / "victim").exists()


@pytest.fixture
def shared_temporary(tmp_path, monkeypatch):
    monkeypatch.delenv("LKSPACE_LOCKS")
    monkeypatch.setattr(quiet, "_TEMPORARY", tmp_path)
    return tmp_path / f"lkspace-{os.getuid()}"


def test_default_folder_is_private_and_apart_from_the_environment(shared_temporary, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/elsewhere")
    assert lock_folder() == shared_temporary
    assert shared_temporary.stat().st_mode & 0o777 == 0o700


def test_default_folder_made_by_somebody_else_is_refused(shared_temporary, tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o700)
    shared_temporary.symlink_to(tmp_path / "theirs")
    with pytest.raises(RunError, match="only you can write"):
        lock_folder()
    shared_temporary.unlink()
    shared_temporary.mkdir()
    shared_temporary.chmod(0o777)
    with pytest.raises(RunError, match="only you can write"):
        lock_folder()


def test_gpu_is_known_by_its_uuid(monkeypatch):
    import torch

    uuids = {0: "aaaa", 1: "bbbb"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: type("P", (), {"uuid": uuids[n]}))
    quiet._gpu_uuid.cache_clear()
    assert [Device(n).key for n in ("cuda", "cuda:0", "cuda:1")] == ["cuda-aaaa", "cuda-aaaa", "cuda-bbbb"]
    with pytest.raises(UserError, match="'cuda:2': 2 CUDA devices"):
        _ = Device("cuda:2").key
    quiet._gpu_uuid.cache_clear()


@pytest.mark.parametrize("name", ["", "../cpu", "cuda:", "cuda:-1", "CPU 0"])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="expected 'cpu'"):
        Device(name)


def test_pickles():
    assert pickle.loads(pickle.dumps(Device("cpu"))) == Device("cpu")


def test_system_without_flock_says_so(monkeypatch):
    monkeypatch.setattr(quiet, "fcntl", None)
    with pytest.raises(RunError, match="no fcntl"), Device("cpu").step():
        pass


def test_a_line_of_measurements_is_not_a_device_that_hangs(others):
    """Each waits for those before it; the limit is for a step that does not end."""
    others[0].enter("cpu", "exclusive")
    threading.Timer(0.3, others[0].leave).start()
    with Device("cpu").exclusive(timeout=0.1, in_line=True) as waited:
        assert waited > 0.15
    others[0].enter("cpu", "step")
    with pytest.raises(RunError, match="still in use"), Device("cpu").exclusive(timeout=0.05, in_line=True):
        pass
    others[0].leave()
