import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lkspace.errors import UserError
from lkspace.search.lock import SCRATCH_PREFIX, run_lock

HOLD = """
import sys
from pathlib import Path
from lkspace.search.lock import run_lock
with run_lock(Path(sys.argv[1])) as lock:
    lock.remember(Path(sys.argv[2]))
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    scratch = tmp_path / f"{SCRATCH_PREFIX}x"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), str(scratch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process, scratch
    process.kill()
    process.communicate()


def test_a_second_search_in_the_folder_is_refused_with_the_process(tmp_path, holder):
    process, _ = holder
    with pytest.raises(UserError, match=rf"another search runs there \(process {process.pid} on"), run_lock(tmp_path):
        pass


def test_a_killed_holder_holds_nothing_and_its_scratch_goes(tmp_path, holder):
    process, scratch = holder
    process.kill()
    process.wait()
    assert scratch.is_dir()
    with run_lock(tmp_path):
        assert not scratch.exists()
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_a_server_of_rays_that_outlived_its_driver_is_ended_and_nobody_else(tmp_path, holder):
    process, scratch = holder
    waiting = ["-c", "read line", "sh", f"--log_dir={scratch}/session/logs"]
    programs = ("/x/site-packages/ray/core/src/ray/gcs/gcs_server", "tail")
    server, other = (
        subprocess.Popen([program, *waiting], executable="/bin/sh", stdin=subprocess.PIPE) for program in programs
    )
    process.kill()
    process.wait()
    with run_lock(tmp_path):
        assert server.wait(10) == -signal.SIGKILL
        assert other.poll() is None
    other.communicate(b"\n", timeout=10)


def test_the_lock_can_be_had_again(tmp_path):
    for _ in range(2):
        with run_lock(tmp_path):
            pass


@pytest.mark.parametrize("content", ["", "[1]", "not json", '{"scratch": 3}'])
def test_any_content_of_the_file_is_survived(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with run_lock(tmp_path):
        pass


def test_only_folders_of_ours_are_removed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    elsewhere = tmp_path / f"{SCRATCH_PREFIX}y"
    elsewhere.mkdir()
    for scratch, host in ((precious, socket.gethostname()), (elsewhere, "another-host")):
        (tmp_path / ".lock").write_text(json.dumps({"pid": 1, "host": host, "scratch": str(scratch)}))
        with run_lock(Path(tmp_path)):
            pass
    assert precious.is_dir()
    assert elsewhere.is_dir()
