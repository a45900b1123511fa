"""An architecture, taken away: into files that another program loads and that give the same numbers there.

Each target is one file here, found through `lkspace.registry.exporters`.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lkspace.errors import RunError, UserError
from lkspace.registry import exporters
from lkspace.space.architecture import Architecture

if TYPE_CHECKING:
    from torch import Tensor

    from lkspace.export.target import Package, Target
    from lkspace.nets import Form
    from lkspace.study import Study, Trial

__all__ = ["export", "export_reference", "export_trial", "takes_weights", "trial_weights", "verify"]


def export(
    architecture: Architecture,
    target: str,
    folder: str | Path,
    *,
    form: "Form" = "deploy",
    classes: int = 1000,
    weights: "str | Path | Mapping[str, Tensor] | None" = None,
    weights_from: str = "given",
    size: int = 224,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an architecture for `target` into `folder`, check that it loads and gives the same numbers; the folder.

    form: "train" or "deploy", as far as the target knows it. weights: a safetensors file or a state dict, train or
    deploy form; None for fresh ones drawn with `seed`, which the export then says. weights_from: what it says
    otherwise. size: side of the image that the reference outputs are for. about: JSON types to keep with it.
    Files appear only when all are complete and verified; none is replaced unless `overwrite`.
    Raises UserError, with the reason, if the target cannot express the architecture, the weights do not fit or a
    file is there already; RunError if the files cannot be written or do not verify.
    """
    from lkspace.export.target import Package

    to = cast("Target", exporters.get(target))
    if form not in to.forms:
        raise UserError(f"cannot export form {form!r} to {target}; it takes {', '.join(to.forms)}")
    if reason := to.refusal(architecture, form):
        raise UserError(f"cannot export {architecture} to {target}: {reason}")
    state = _state(weights) if isinstance(weights, str | Path) else weights
    package = Package(architecture, form, classes, size, seed, state, weights_from, about or {})
    folder = Path(os.path.expanduser(folder))
    try:
        _write(to, package, folder, overwrite)
    except OSError as error:
        raise RunError(f"cannot write {error.filename or folder}: {error.strerror or error}") from None
    return folder


def export_reference(name: str, target: str, *, form: "Form" = "deploy", folder: str | Path | None = None) -> Path:
    """A reference point by its name, with random weights; by default into `export/NAME`.

    A published architecture at 224 px and 1000 classes, or one of a shipped space's at the space's size and classes;
    UserError listing the known names if there is none.
    """
    architecture, size, classes = _reference(name)
    about = {"reference": name}
    return export(
        architecture, target, folder or Path("export", name), form=form, classes=classes, size=size, about=about
    )


def _reference(name: str) -> tuple[Architecture, int, int]:
    """The architecture, and size and classes of its images."""
    from lkspace import nets
    from lkspace.space import SearchSpace, shipped

    # A name in two spaces is the later one's: small-kernels is replknet-tiny's, not that of replknet-micro, for tests.
    spaces = [SearchSpace.load(space) for space in shipped()]
    known = {r.name: (r.architecture, s.image_size, s.classes) for s in spaces for r in s.references}
    known |= {key: (published, 224, 1000) for key, published in nets.references().items()}
    if name not in known:
        raise UserError(f"unknown reference {name!r}; known: {', '.join(known)}")
    return known[name]


def export_trial(
    study: "Study", number: int, target: str, *, form: "Form" = "deploy", folder: str | Path | None = None
) -> Path:
    """A trial's network with the weights of its proxy training; by default into `export/STUDY-NUMBER`.

    A trial that left no weights (no accuracy was asked for, it was stopped early or failed) is exported with random
    ones, and says so. UserError if it was trained to its end and its weights are not where the run's folder was.
    """
    trial, setting = study.trial(number), study.plan.setting
    weights = trial_weights(study, number)
    if weights is None and _trained(study, trial) and takes_weights(target):
        where = f"in {study.folder / 'trials' / str(number)}" if study.folder else "here, without the run's folder"
        raise UserError(f"trial {number} was trained, but its weights are not {where}; `--to json` needs none")
    values = {name: value for name, value in trial.values.items() if math.isfinite(value)}  # JSON knows no others
    return export(
        trial.architecture,
        target,
        folder or Path("export", f"{study.name}-{number}"),
        form=form,
        classes=setting["classes"],
        weights=weights,
        weights_from="proxy training",
        size=setting["size"],
        seed=setting["seed"],
        about={"study": study.name, "trial": number, "data": setting["data"], "values": values},
    )


def trial_weights(study: "Study", number: int) -> Path | None:
    """The weights file of a trial's proxy training, in the run's folder; None if there is none.

    One of another architecture, which an earlier run in the same folder left, is none.
    """
    trial = study.trial(number)
    if study.folder is None or not _trained(study, trial):
        return None
    for path in sorted((study.folder / "trials" / str(number)).glob("*.safetensors")):
        if _architecture_of(path) in (None, trial.architecture):
            return path
    return None


def _trained(study: "Study", trial: "Trial") -> bool:
    """Whether its proxy training ran to its end, so that it left weights."""
    return bool(trial.curve) and trial.curve[-1].get("epoch") == study.plan.setting.get("epochs")


def _architecture_of(path: Path) -> Architecture | None:
    """Whose weights a file says that it holds; None if it does not say."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            text = (file.metadata() or {}).get("architecture")
        return None if text is None else Architecture.from_json(text)
    except (OSError, SafetensorError, UserError):
        return None


def takes_weights(target: str) -> bool:
    """Whether weights are part of what is written for a target."""
    return cast("Target", exporters.get(target)).takes_weights


def verify(folder: str | Path, target: str = "replknet") -> None:
    """Load an export again and compare it with its reference outputs.

    Raises RunError if it gives other numbers, UserError if a file is missing, damaged or does not fit.
    """
    cast("Target", exporters.get(target)).verify(Path(folder))


def _write(target: "Target", package: "Package", folder: Path, overwrite: bool) -> None:
    """Write and verify beside the folder, then move in: a full disk leaves nothing half-written."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder")
    there = [name for name in target.files if (folder / name).exists()]
    if there and not overwrite:
        raise UserError(f"{folder / there[0]} is there already; name another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder if folder.is_dir() else folder.parent  # on the folder's own disk, which may be mounted there
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=beside))
    try:
        target.write(package, partial)
        target.verify(partial)
        folder.mkdir(exist_ok=True)
        for name in target.files:
            (partial / name).replace(folder / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _state(path: str | Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"weights {str(path)!r} cannot be read: {error}; expected a safetensors file") from None
