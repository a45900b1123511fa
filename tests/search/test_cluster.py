import os
import tempfile

import pytest

from lkspace.errors import RunError, UserError
from lkspace.processor import cores
from lkspace.search import cluster


def test_the_scratch_path_is_short_wherever_temporary_files_lie_and_goes(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with cluster.scratch_folder() as folder:
        assert folder.is_dir()
        assert len(str(folder)) <= 40
    assert not folder.exists()


def test_cores_are_those_this_process_may_use():
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


def test_a_client_address_is_refused_with_the_mend(tmp_path):
    refused = pytest.raises(UserError, match="run the command on a machine of the cluster")
    with refused, cluster.ray_cluster(tmp_path, "ray://10.0.0.1:10001", cpus=1, gpus=0):
        pass


def test_gpus_that_are_not_here_are_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"gpus_per_trial is 0\.5, but torch finds no GPU here"):
        cluster.check_gpus(0.5, None)
    cluster.check_gpus(0.5, "head:6379")
    for wrong in (-1.0, 1.5, 1e-5, float("nan"), float("inf")):
        with pytest.raises(UserError, match="expected 0, a whole number, or a part of one"):
            cluster.check_gpus(wrong, "head:6379")
    cluster.check_gpus(0.0, None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    cluster.check_gpus(1.0, None)


@pytest.mark.parametrize(
    ("gpus", "per_trial", "slots"),
    [(2, 0.5, 4), (2, 1, 2), (3, 2, 1), (1, 0.3, 3), (2, 0.66, 2), (0, 0.5, 0), (1, 0.1, 10)],
)
def test_a_fraction_of_a_gpu_never_spans_two(gpus, per_trial, slots):
    assert cluster.gpu_slots(gpus, per_trial) == slots


@pytest.mark.parametrize(("code", "raised"), [(1, RunError), (15, SystemExit)])
def test_a_ray_that_exits_while_it_starts_is_told_and_a_signal_is_obeyed(tmp_path, monkeypatch, code, raised):
    import ray

    def init(**options):
        raise SystemExit(code)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(raised), cluster.ray_cluster(tmp_path, None, cpus=1, gpus=0.0):
        pass
