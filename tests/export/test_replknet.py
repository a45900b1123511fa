import json
import re
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lkspace import nets
from lkspace.errors import RunError, UserError
from lkspace.export import export, verify
from lkspace.space.architecture import Architecture

UNIFORM = Architecture("replknet", (1, 2, 1), (8, 12, 16), (15, 9, 7), (5, 5, 5), (True,) * 3, dw_ratio=1.5)
MIXED = Architecture("replknet", (1, 1, 1), (8, 12, 16), (15, 3, 7), (5, None, 3), (True,) * 3, ffn_ratio=2.0)


@pytest.fixture
def exported(tmp_path, awkward_weights):
    """An export of UNIFORM in train form with weights that show every mistake."""
    weights = awkward_weights(nets.build(UNIFORM, 5))
    return export(UNIFORM, "replknet", tmp_path / "net", form="train", classes=5, weights=weights, size=48)


@pytest.mark.parametrize(("architecture", "form"), [(UNIFORM, "train"), (UNIFORM, "deploy"), (MIXED, "deploy")])
def test_a_second_implementation_gives_the_same_numbers(tmp_path, awkward_weights, plain_replknet, architecture, form):
    torch.manual_seed(1)
    weights = awkward_weights(nets.build(architecture, 5))
    folder = export(architecture, "replknet", tmp_path, form=form, classes=5, weights=weights, size=48)
    reference = dict(np.load(folder / "reference.npz"))
    constructor = json.loads((folder / "config.json").read_text())["constructor"]
    state = load_file(folder / "model.safetensors")
    assert state["head.weight"].shape == (constructor["num_classes"], 16)
    assert any("lkb_reparam" in key for key in state) is constructor["small_kernel_merged"] is (form == "deploy")
    for source in (state, weights):  # what was written, and what was given: merging kept the function
        outputs = plain_replknet(source, constructor["layers"], reference["input"])
        assert outputs.keys() | {"input"} == reference.keys()
        for name, array in outputs.items():
            np.testing.assert_allclose(array, reference[name], rtol=0, atol=1e-5 * (1 + np.abs(array).max()))


def test_the_constructors_arguments(tmp_path):
    export(UNIFORM, "replknet", tmp_path, form="train", classes=5, size=32)
    assert json.loads((tmp_path / "config.json").read_text())["constructor"] == {
        "large_kernel_sizes": [15, 9, 7],
        "layers": [1, 2, 1],
        "channels": [8, 12, 16],
        "drop_path_rate": 0.0,
        "small_kernel": 5,
        "dw_ratio": 1.5,
        "ffn_ratio": 4.0,
        "in_channels": 3,
        "num_classes": 5,
        "use_checkpoint": False,
        "small_kernel_merged": False,
        "use_sync_bn": False,
    }


def test_random_weights_say_so_and_follow_from_the_seed(tmp_path):
    states = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        folder = export(UNIFORM, "replknet", tmp_path / name, classes=5, size=32, seed=seed)
        assert json.loads((folder / "config.json").read_text())["weights"] == f"random, seed {seed}"
        assert f"Weights: random, seed {seed}." in (folder / "README.md").read_text()
        states.append(load_file(folder / "model.safetensors")["head.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_the_snippet_of_the_readme_runs(exported, monkeypatch):
    """With a stand-in for the authors' module, which takes their arguments and has their names."""

    def stand_in(**arguments):
        assert arguments["use_sync_bn"] is False
        return nets.build(UNIFORM, arguments["num_classes"])

    module = types.ModuleType("replknet")
    module.RepLKNet = stand_in
    monkeypatch.setitem(sys.modules, "replknet", module)
    monkeypatch.chdir(exported)
    (snippet,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(snippet, names)
    assert names["logits"].shape == (1, 5)


@pytest.mark.parametrize(
    ("change", "form", "words"),
    [
        ({"shortcut": (True, False, False)}, "deploy", r"no shortcut in stage 2, 3"),
        ({"shortcut": (False, True, True)}, "train", r"no shortcut in stage 1;"),
        ({"stem_stride": 2}, "deploy", "stem stride 2"),
        ({"reparam": (5, 3, 5)}, "train", r"mixed re-param kernels \(5, 3, 5\).*deploy form can be exported"),
        ({"reparam": (5, None, 5)}, "train", r"\(5, none, 5\)"),
    ],
)
def test_what_the_release_cannot_express_is_refused(tmp_path, change, form, words):
    architecture = Architecture.from_dict({**UNIFORM.to_dict(), **change})
    with pytest.raises(UserError, match=rf"cannot export .* to replknet: .*{words}"):
        export(architecture, "replknet", tmp_path / "net", form=form)
    assert not list(tmp_path.iterdir())


def test_the_folded_form_has_no_place_there(tmp_path):
    with pytest.raises(UserError, match="'folded' to replknet; it takes train, deploy"):
        export(UNIFORM, "replknet", tmp_path, form="folded")


def flip(state):
    key = "stages.0.blocks.0.large_kernel.lkb_origin.conv.weight"
    state[key] = state[key].flip(2, 3).contiguous()


def swap(state):
    for part in ("weight", "bias"):
        keys = [f"stages.1.blocks.{block}.preffn_bn.{part}" for block in (1, 3)]
        state[keys[0]], state[keys[1]] = state[keys[1]], state[keys[0]]


def forget_mean(state):
    state["norm.running_mean"] = torch.zeros_like(state["norm.running_mean"])


@pytest.mark.parametrize("damage", [flip, swap, forget_mean])
def test_verification_sees_wrong_weights(exported, damage):
    verify(exported)
    state = load_file(exported / "model.safetensors")
    damage(state)
    save_file(state, exported / "model.safetensors")
    with pytest.raises(RunError, match=r"differs from the reference by"):
        verify(exported)


@pytest.mark.parametrize(
    ("key", "value", "error", "words"),
    [
        ("dw_ratio", 1.0, UserError, "pw1.conv.weight has shape"),
        ("small_kernel", None, UserError, "small_conv.bn.num_batches_tracked is unknown"),
        ("small_kernel", 3, UserError, "small_conv.conv.weight has shape"),
        ("small_kernel_merged", True, UserError, "lkb_reparam.weight is missing"),
        ("num_classes", "many", UserError, "config.json"),
        ("channels", None, UserError, "channels is None"),
    ],
)
def test_verification_sees_a_wrong_constructor(exported, key, value, error, words):
    config = json.loads((exported / "config.json").read_text())
    config["constructor"][key] = value
    (exported / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=words):
        verify(exported)


def test_verification_sees_a_wrong_key(exported):
    state = load_file(exported / "model.safetensors")
    state["heads.weight"] = state.pop("head.weight")
    save_file(state, exported / "model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors: head.weight is missing"):
        verify(exported)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "reference.npz"])
@pytest.mark.parametrize("content", [None, b"", b"garbage", b"PK\x03\x04 half a zip"])
def test_missing_and_damaged_files_are_named(exported, name, content):
    (exported / name).unlink()
    if content is not None:
        (exported / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(exported))):
        verify(exported)


def test_a_reference_without_input_is_no_reference(exported):
    arrays = dict(np.load(exported / "reference.npz"))
    np.savez(exported / "reference.npz", logits=arrays["logits"])
    with pytest.raises(UserError, match="holds no float32 input"):
        verify(exported)
    np.savez(exported / "reference.npz", input=arrays["input"], logits=arrays["logits"])
    with pytest.raises(UserError, match=r"expected feature_0"):
        verify(exported)


def test_weights_that_are_not_finite_are_not_exported(tmp_path):
    weights = nets.build(UNIFORM, 5).state_dict()
    weights["head.bias"][0] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        export(UNIFORM, "replknet", tmp_path / "net", classes=5, weights=weights, size=32)
    assert not list(tmp_path.iterdir())
