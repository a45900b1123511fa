"""The authors' release (github.com/DingXiaoH/RepLKNet-pytorch): their constructor's arguments and state-dict names.

Their class takes one re-param kernel for all stages, always has shortcuts and a stem of stride 4. Merged, it takes
any kernel sizes, whatever was merged into them.
"""

import json
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lkspace.data.batches import DEVIATION, MEAN
from lkspace.errors import RunError, UserError
from lkspace.export.target import Package, mismatch
from lkspace.nets import Form, build
from lkspace.registry import exporters
from lkspace.space.architecture import Architecture

CONFIG, WEIGHTS, REFERENCE, README = "config.json", "model.safetensors", "reference.npz", "README.md"
# Of the largest value: what float32 sums in another order may differ by.
TOLERANCE = 1e-5

_HOW_TO_LOAD = """\
# {title}

{architecture}

Form: {form}. Weights: {weights}. Images: 3 x {size} x {size}, trained on as (value - {mean}) / {deviation}
with values in [0, 1]; classes: {classes}.

Made by lkspace. It loads into the authors' code, `replknet.py` of https://github.com/DingXiaoH/RepLKNet-pytorch:

```python
import json

import numpy as np
import torch
from replknet import RepLKNet
from safetensors.torch import load_file

config = json.load(open("config.json"))
model = RepLKNet(**config["constructor"])
model.load_state_dict(load_file("model.safetensors"), strict=True)
model.eval()

# One input and what it must give: logits here; feature_0, feature_1, ... are the stages' outputs.
reference = np.load("reference.npz")
with torch.no_grad():
    logits = model(torch.from_numpy(reference["input"]))
assert np.abs(logits.numpy() - reference["logits"]).max() <= {tolerance} * (1 + np.abs(reference["logits"]).max())
```

`lkspace.export.verify` makes the same comparison with lkspace's own network, for the stages' outputs too.
"""


class RepLKNetRelease:
    """config.json, model.safetensors, reference.npz and a README that says how to load them."""

    forms: tuple[Form, ...] = ("train", "deploy")
    files = (CONFIG, WEIGHTS, REFERENCE, README)
    takes_weights = True

    def refusal(self, architecture: Architecture, form: Form) -> str | None:
        """Why the authors' class cannot be this network."""
        if architecture.family != "replknet":
            return f"it is a {architecture.family}"
        without = [str(i + 1) for i, shortcut in enumerate(architecture.shortcut) if not shortcut]
        if without:
            return f"no shortcut in stage {', '.join(without)}; the authors' block always adds its input"
        if architecture.stem_stride != 4:
            return f"stem stride {architecture.stem_stride}; the authors' stem always has 4"
        if form == "train" and len(set(architecture.reparam)) > 1:
            kernels = ", ".join("none" if s is None else str(s) for s in architecture.reparam)
            return (
                f"mixed re-param kernels ({kernels}) in train form; the authors' class has one for all stages;"
                " the deploy form can be exported"
            )
        return None

    def write(self, package: Package, folder: Path) -> None:
        """Write the four files. UserError if the weights do not fit or give values that are not finite."""
        network = package.network()
        arrays = reference(network, package.size, package.seed)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise UserError(f"the weights ({package.origin}) give outputs that are not finite")
        config = {
            "format": "replknet",
            "form": package.form,
            "weights": package.origin,
            "constructor": constructor(package),
            "architecture": package.architecture.to_dict(),
            "size": package.size,
            "normalisation": {"mean": MEAN, "deviation": DEVIATION},
            "about": dict(package.about),
            "versions": {"lkspace": _version("lkspace"), "torch": torch.__version__},
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        try:
            save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:  # how it tells of a full disk
            raise RunError(f"cannot write {WEIGHTS}: {error}") from None
        with (folder / REFERENCE).open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        readme = _HOW_TO_LOAD.format(
            title=f"RepLKNet {package.architecture.id}",
            architecture=package.architecture,
            form=package.form,
            weights=package.origin,
            size=package.size,
            classes=package.classes,
            mean=MEAN,
            deviation=DEVIATION,
            tolerance=TOLERANCE,
        )
        (folder / README).write_text(readme, encoding="utf-8")

    def verify(self, folder: Path) -> None:
        """Build from the constructor's arguments alone, load, and compare with the reference outputs."""
        config = _config(folder / CONFIG)
        network = _built(folder / CONFIG, config)
        try:
            weights = load_file(folder / WEIGHTS)
            with np.load(folder / REFERENCE, allow_pickle=False) as stored:
                want = dict(stored)
        except (OSError, EOFError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
            raise UserError(f"{folder}: cannot be read ({error})") from None
        if misfit := mismatch(network, weights):
            raise UserError(f"{folder / WEIGHTS}: {misfit}")
        network.load_state_dict(weights, assign=True)
        image = want.get("input")
        if image is None or image.dtype != np.float32 or image.ndim != 4 or image.shape[1] != 3:
            raise UserError(f"{folder / REFERENCE}: holds no float32 input of shape (n, 3, height, width)")
        got = outputs(network.float().eval(), image)
        if got.keys() != want.keys():
            raise UserError(f"{folder / REFERENCE}: holds {', '.join(sorted(want))}, expected {', '.join(sorted(got))}")
        for name, array in got.items():
            _compare(folder, name, array, want[name])


exporters.register("replknet")(RepLKNetRelease())


def constructor(package: Package) -> dict[str, Any]:
    """Arguments of the authors' `RepLKNet`. Merged, the size of the re-param kernel is without effect there."""
    a = package.architecture
    return {
        "large_kernel_sizes": list(a.kernels),
        "layers": list(a.blocks),
        "channels": list(a.channels),
        "drop_path_rate": 0.0,
        "small_kernel": a.reparam[0] if len(set(a.reparam)) == 1 else None,
        "dw_ratio": a.dw_ratio,
        "ffn_ratio": a.ffn_ratio,
        "in_channels": 3,
        "num_classes": package.classes,
        "use_checkpoint": False,
        "small_kernel_merged": package.form == "deploy",
        "use_sync_bn": False,
    }


def reference(network: nn.Module, size: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """A fixed input (1, 3, size, size) of standard normal numbers, and what the network makes of it."""
    image = np.random.default_rng(seed).standard_normal((1, 3, size, size)).astype(np.float32)
    return outputs(network, image)


def outputs(network: nn.Module, image: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """`input`, `logits` and `feature_<stage>`, the maps before the final norm."""
    with torch.no_grad():
        x = torch.from_numpy(image)
        maps = network.features(x)  # type: ignore[operator]
        arrays = {"input": image, "logits": network(x).numpy()}
    return arrays | {f"feature_{stage}": map_.numpy() for stage, map_ in enumerate(maps)}


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not isinstance(config, dict) or config.get("format") != "replknet":
        raise UserError(f"{path}: not an export to replknet")
    return config


def _built(path: Path, config: dict[str, Any]) -> nn.Module:
    """The network that the authors' constructor would build from these arguments, without values yet."""
    try:
        given = config["constructor"]
        stages = len(given["layers"])
        architecture = Architecture(
            family="replknet",
            blocks=given["layers"],
            channels=given["channels"],
            kernels=given["large_kernel_sizes"],
            reparam=(None if given["small_kernel_merged"] else given["small_kernel"],) * stages,
            shortcut=(True,) * stages,
            dw_ratio=given["dw_ratio"],
            ffn_ratio=given["ffn_ratio"],
        )
        with torch.device("meta"):
            network = build(architecture, given["num_classes"])
    except KeyError as error:
        raise UserError(f"{path}: {error} is missing") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: {error}") from None
    return network.deploy() if given["small_kernel_merged"] else network  # type: ignore[operator]


def _compare(folder: Path, name: str, got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> None:
    if got.shape != want.shape:
        raise RunError(f"{folder}: {name} has shape {got.shape}, the reference {want.shape}")
    error, allowed = float(np.abs(got - want).max()), TOLERANCE * (1 + float(np.abs(want).max()))
    if not error <= allowed:
        raise RunError(f"{folder}: {name} differs from the reference by {error:.3g}, allowed is {allowed:.3g}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
