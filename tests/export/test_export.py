import dataclasses
import errno
import json
import math
import tempfile
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lkspace import nets
from lkspace.errors import RunError, UserError
from lkspace.export import export, export_reference, export_trial, trial_weights, verify
from lkspace.registry import exporters
from lkspace.space import SearchSpace
from lkspace.space.architecture import Architecture

TINY = Architecture("replknet", (1, 1), (4, 6), (9, 5), (3, 3), (True, True))


def test_targets_are_found():
    assert {"json", "replknet"} <= set(exporters.names())
    with pytest.raises(UserError, match=r"unknown export target 'tim'; known: .*json.*replknet"):
        export(TINY, "tim", "anywhere")


def test_only_the_targets_files_are_left_and_no_random_number_is_drawn(tmp_path):
    state = torch.get_rng_state()
    assert export(TINY, "replknet", tmp_path / "a" / "b", classes=3, size=16) == tmp_path / "a" / "b"
    assert torch.equal(torch.get_rng_state(), state)
    files = {path.name for path in (tmp_path / "a").rglob("*")}
    assert files == {"b", "config.json", "model.safetensors", "reference.npz", "README.md"}


def test_weights_of_either_form_from_file_or_memory(tmp_path):
    network = nets.build(TINY, 3)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    merged = network.deploy().state_dict()
    for name, weights in (("file", tmp_path / "weights.safetensors"), ("memory", merged)):
        folder = export(TINY, "replknet", tmp_path / name, classes=3, size=16, weights=weights)
        stored = load_file(folder / "model.safetensors")
        assert stored.keys() == merged.keys()
        assert all(torch.equal(stored[key], merged[key]) for key in merged)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    weights = nets.build(TINY, 3).state_dict()
    with pytest.raises(UserError, match=r"with 4 classes: head.weight has shape \(3, 6\), expected \(4, 6\)"):
        export(TINY, "replknet", tmp_path / "net", classes=4, weights=weights)
    with pytest.raises(UserError, match=r"spam is unknown"):
        export(TINY, "replknet", tmp_path / "net", classes=3, weights={**weights, "spam": torch.zeros(1)})
    merged = nets.build(TINY, 3).deploy().state_dict()
    with pytest.raises(UserError, match=r"merged already.*export the deploy form"):
        export(TINY, "replknet", tmp_path / "net", form="train", classes=3, weights=merged)
    for name, content in (("absent", None), ("bad.safetensors", b"no tensors")):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}' cannot be read.*expected a safetensors file"):
            export(TINY, "replknet", tmp_path / "net", classes=3, weights=tmp_path / name)
    assert not (tmp_path / "net").exists()


def test_nothing_is_written_over_unless_asked(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine too")
    with pytest.raises(UserError, match=r"README.md is there already; name another folder"):
        export(TINY, "replknet", tmp_path, classes=3, size=16)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2
    export(TINY, "replknet", tmp_path, classes=3, size=16, overwrite=True)
    assert "RepLKNet" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "notes.txt").read_text() == "mine too"
    export(TINY, "json", tmp_path)  # another target's files may lie beside
    with pytest.raises(UserError, match=r"notes.txt is a file; name a folder"):
        export(TINY, "json", tmp_path / "notes.txt")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "reference.npz")

    monkeypatch.setattr("numpy.savez", full)
    with pytest.raises(RunError, match=r"cannot write reference.npz: No space left on device"):
        export(TINY, "replknet", tmp_path / "net", classes=3, size=16)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_written_in_not_beside(tmp_path, monkeypatch):
    """It may be a disk of its own, or its parent one that nobody may write to."""
    made, places = tempfile.mkdtemp, []

    def noted(prefix, dir):
        places.append(dir)
        return made(prefix=prefix, dir=dir)

    monkeypatch.setattr("tempfile.mkdtemp", noted)
    (tmp_path / "net").mkdir()
    for name in ("net", "other"):
        verify(export(TINY, "json", tmp_path / name), "json")
        assert not list((tmp_path / name).glob(".*"))
    assert places == [tmp_path / "net", tmp_path]


def test_what_does_not_verify_is_not_left_behind(tmp_path, monkeypatch):
    def other_numbers(_, folder):
        raise RunError(f"{folder}: logits differ")

    monkeypatch.setattr(type(exporters.get("replknet")), "verify", other_numbers)
    with pytest.raises(RunError, match="logits differ"):
        export(TINY, "replknet", tmp_path / "net", classes=3, size=16)
    assert not list(tmp_path.iterdir())


def test_a_reference_point_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = export_reference("replknet-31b", "json")
    assert folder.as_posix() == "export/replknet-31b"
    verify(folder, "json")
    with pytest.raises(UserError, match=r"unknown reference 'replknet-32'; known: .*replknet-31b.*large-kernels"):
        export_reference("replknet-32", "json")


@pytest.mark.parametrize("name", ["large-kernels", "small-kernels"])
def test_a_reference_point_of_a_shipped_space(name, tmp_path):
    space = SearchSpace.load("replknet-tiny")
    point = next(r.architecture for r in space.references if r.name == name)
    folder = export_reference(name, "replknet", folder=tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    assert Architecture.from_dict(config["architecture"]) == point
    assert (config["size"], config["constructor"]["num_classes"]) == (space.image_size, space.classes)
    assert config["about"] == {"reference": name}


def study(folder, number, trained=4):
    """What the exporter reads of a study. trained: epochs of four."""
    curve = tuple({"epoch": epoch, "accuracy": 0.5} for epoch in range(1, trained + 1))
    trial = SimpleNamespace(architecture=TINY, curve=curve, values={"accuracy": 0.5, "latency": math.nan})
    plan = SimpleNamespace(setting={"classes": 3, "size": 16, "seed": 9, "data": "digits", "epochs": 4})
    return SimpleNamespace(name="first", folder=folder, plan=plan, trial={number: trial}.__getitem__)


def test_a_trial_with_the_weights_of_its_training(tmp_path):
    weights = nets.build(TINY, 3).state_dict()
    (tmp_path / "trials" / "4").mkdir(parents=True)
    save_file(weights, tmp_path / "trials" / "4" / "weights.safetensors")
    folder = export_trial(study(tmp_path, 4), 4, "replknet", form="train", folder=tmp_path / "net")
    stored = load_file(folder / "model.safetensors")
    assert all(torch.equal(stored[key], weights[key]) for key in weights)
    config = json.loads((folder / "config.json").read_text())
    assert config["weights"] == "proxy training"
    assert config["about"] == {"study": "first", "trial": 4, "data": "digits", "values": {"accuracy": 0.5}}


def test_weights_that_an_earlier_run_left_in_the_folder_are_not_taken(tmp_path):
    place = tmp_path / "trials" / "4" / "weights.safetensors"
    place.parent.mkdir(parents=True)
    other = dataclasses.replace(TINY, ffn_ratio=2.0 * TINY.ffn_ratio)
    for architecture in (TINY, other):
        save_file(nets.build(architecture, 3).state_dict(), place, {"architecture": architecture.to_json()})
        assert trial_weights(study(tmp_path, 4), 4) == (place if architecture is TINY else None)
        assert trial_weights(study(tmp_path, 4, trained=2), 4) is None
    with pytest.raises(UserError, match=r"trial 4 was trained, but its weights are not in"):
        export_trial(study(tmp_path, 4), 4, "replknet", folder=tmp_path / "net")


@pytest.mark.parametrize("with_folder", [True, False])
@pytest.mark.parametrize("trained", [0, 2])
def test_a_trial_without_weights_says_so(tmp_path, monkeypatch, with_folder, trained):
    monkeypatch.chdir(tmp_path)
    folder = export_trial(study(tmp_path if with_folder else None, 4, trained), 4, "replknet")
    assert folder.as_posix() == "export/first-4"
    assert json.loads((folder / "config.json").read_text())["weights"] == "random, seed 9"


@pytest.mark.parametrize("with_folder", [True, False])
def test_weights_that_a_training_left_are_not_replaced_by_random_ones(tmp_path, monkeypatch, with_folder):
    monkeypatch.chdir(tmp_path)
    found = study(tmp_path if with_folder else None, 4)
    with pytest.raises(UserError, match=r"its weights are not .*`--to json` needs none"):
        export_trial(found, 4, "replknet")
    assert not (tmp_path / "export").exists()
    verify(export_trial(found, 4, "json"), "json")
