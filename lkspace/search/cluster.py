"""Ray for the length of one search: started quietly on this machine, or joined at an address, and always left.

A started Ray dies with its driver, a killed one's too (its processes watch their parent; workers are gone in two
seconds, two idle agents try for a minute to report the death to nobody), and writes only to one scratch folder.
"""

import contextlib
import logging
import math
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lkspace.errors import RunError, UserError
from lkspace.search.lock import SCRATCH_PREFIX

# Set before Ray is imported; a value that the user set stays.
_QUIET = {
    "RAY_AUTH_MODE": "disabled",  # a started Ray listens on this machine only, for the length of the run
    "RAY_USAGE_STATS_ENABLED": "0",  # no network
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths that the user gave stay good in the workers
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C must end the run within a second, without a snapshot
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the study is the record
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}
_LONGEST_SCRATCH = 40  # a socket's path may have 107 bytes, and Ray appends up to 65
_RANDOM_PART = 8  # characters that mkdtemp adds
_LEAST_SHARE = 1e-4  # of a GPU: Ray counts no finer
_OBJECT_STORE = 128 * 2**20  # bytes: only reports pass through it, Ray's default is a third of the memory


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for Ray's sockets; removed at the end."""
    base = Path(tempfile.gettempdir())
    if len(str(base / SCRATCH_PREFIX)) + _RANDOM_PART > _LONGEST_SCRATCH:
        base = Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def ray_cluster(scratch: Path, address: str | None, *, cpus: int, gpus: float) -> Iterator[None]:
    """Ray is up inside: a local one with that many CPUs and room for `gpus`, or the cluster at `address`.

    Raises UserError if the address is wrong, RunError if Ray does not start.
    """
    if address is not None and address.startswith("ray://"):
        raise UserError(
            f"--address {address}: run the command on a machine of the cluster and give host:port or 'auto'"
        )
    with variables(_QUIET):
        import ray

        if ray.is_initialized():
            raise UserError("Ray is already running in this process; call ray.shutdown() before the search")
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
        try:
            if address is None:
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=None if gpus else 0,
                    object_store_memory=_OBJECT_STORE,
                    include_dashboard=False,
                    runtime_env=_worker_environment(),
                    _temp_dir=str(scratch),
                    **quiet,
                )
            else:
                ray.init(address=address, runtime_env=_worker_environment(), **quiet)
        except (ConnectionError, ValueError) as error:
            raise UserError(f"--address {address}: no Ray cluster answers there ({_line(error)})") from None
        except Exception as error:
            raise RunError(f"Ray did not start: {_line(error)}") from error
        except SystemExit as error:
            if error.code != 1:  # a signal's
                raise
            raise RunError("Ray's processes were not up in time: the machine may be busy, try again") from error
        try:
            with _terminated_like_interrupted():
                yield
        finally:
            ray.shutdown()


def _worker_environment() -> dict[str, Any]:
    """Environment of the workers; what Tune asks for is in it, so that workers which wait idle suit it."""
    own = {name: value for name, value in os.environ.items() if name.startswith("LKSPACE_")}
    try:
        from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE
    except ImportError:  # another version keeps them elsewhere: workers then start twice
        return {"env_vars": own}
    tune = {name: os.environ[name] for name in ENV_VARS_TO_PROPAGATE if name in os.environ}
    return {"env_vars": {**own, **DEFAULT_ENV_VARS, **tune}}


@contextlib.contextmanager
def variables(defaults: Mapping[str, str]) -> Iterator[None]:
    """These environment variables are set inside, but for those the user has set."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM, which Ray answers by dying on the spot, closes everything as Ctrl-C does, with its own exit code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_gpus(gpus: float, address: str | None) -> None:
    """UserError if Ray cannot give so many, or if this machine has none that torch can use; a cluster's are its own."""
    if not 0 <= gpus < math.inf or (gpus > 1 and gpus != int(gpus)) or 0 < gpus < _LEAST_SHARE:
        raise UserError(f"gpus_per_trial is {gpus:g}, expected 0, a whole number, or a part of one such as 0.25")
    if not gpus or address is not None:
        return
    import torch

    if not torch.cuda.is_available():
        build = f", and torch {torch.__version__} is built without CUDA" if torch.version.cuda is None else ""
        raise UserError(f"gpus_per_trial is {gpus:g}, but torch finds no GPU here{build}: leave --gpus-per-trial away")


def trial_slots(cpus_per_trial: int, gpus_per_trial: float) -> int:
    """How many trials fit the running Ray at a time; UserError if not even one does."""
    import ray

    fitting = 0
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        have = node["Resources"] if node["Alive"] else {}
        fits = have.get("CPU", 0) // cpus_per_trial
        if gpus_per_trial:
            fits = min(fits, gpu_slots(have.get("GPU", 0), gpus_per_trial))
        fitting += int(fits)
    if not fitting:
        wanted = f"{cpus_per_trial} cores" + (f" and {gpus_per_trial:g} GPU" if gpus_per_trial else "")
        raise UserError(f"no machine has {wanted} for one trial: lower --cpus-per-trial or --gpus-per-trial")
    return fitting


def gpu_slots(gpus: float, per_trial: float) -> int:
    """How many trials fit so many GPUs.

    A fraction shares one GPU; two thirds of one and two thirds of another are no place for a trial.
    """
    return int(gpus) * int(1 / per_trial + 1e-9) if per_trial < 1 else int(gpus // per_trial)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
