"""What users get wrong, through the real command line: one line with place and mend, exit code 2, nothing touched.

A case prepares files in an empty folder, where the command then runs, and names words that the one line must hold.
"""

import contextlib
import hashlib
import importlib
import os
import pickle
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lkspace.cli import main

Prepare = Callable[[Path], list[str]]
CASES: dict[str, tuple[Prepare, tuple[str, ...]]] = {}


def case(name: str, *words: str) -> Callable[[Prepare], Prepare]:
    """Enter a case: what it is called, and words of the line it must print."""

    def enter(prepare: Prepare) -> Prepare:
        assert name not in CASES
        CASES[name] = (prepare, words)
        return prepare

    return enter


def call(name: str, arguments: list[str], *words: str) -> None:
    """Enter a case that needs no files."""
    CASES[name] = (lambda _: arguments, words)


def searching(*arguments: str) -> list[str]:
    """A search that would be over in a second if it were not wrong."""
    return ["search", "--space", "replknet-micro", "--budget", "1", "--epochs", "1", "--run", "run", *arguments]


# Broken YAML.

MICRO: dict[str, Any] = {
    "family": "replknet",
    "image_size": 32,
    "classes": 10,
    "stem_stride": 2,
    "stages": 2,
    "blocks": {"whole": [1]},
    "channels": {"whole": [[4, 8]]},
    "kernels": {"per_stage": [[3, 7, 31], [3, 7]]},
}


def space_case(name: str, *words: str, command: str = "check", **changes: Any) -> None:
    """A space file with keys changed, read by `lkspace space check` or by a search."""

    def prepare(here: Path) -> list[str]:
        (here / "mine.yaml").write_text(yaml.safe_dump(MICRO | changes))
        return ["space", command, "mine.yaml"] if command != "search" else [*searching(), "--space", "mine.yaml"]

    CASES[f"YAML: {name}"] = (prepare, ("mine.yaml: ", *words))


def text_case(name: str, content: bytes, *words: str) -> None:
    """A space file with this content."""

    def prepare(here: Path) -> list[str]:
        (here / "mine.yaml").write_bytes(content)
        return [*searching(), "--space", "mine.yaml"]

    CASES[f"YAML: {name}"] = (prepare, ("mine.yaml: ", *words))


text_case("empty", b"", "expected a mapping with the keys name, family")
text_case("not text", bytes(range(128, 256)), "not a text file: byte 0 is not UTF-8")
text_case("bracket left open", b"family: replknet\nkernels: [3, 5\nclasses: 10\n", "line 3: not valid YAML")
text_case("tab", b"family: replknet\nblocks:\n\twhole: [1]\n", "line 3: not valid YAML")
text_case("key twice", b"family: replknet\nclasses: 3\nclasses: 4\n", "line 3", "'classes' is given twice")
text_case("python object", b"family: !!python/object/apply:os.system ['touch pwned']\n", "line 1", "python/object")
text_case(
    "bomb",
    b"a0: &a0 [x]\n"
    + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 10)) for i in range(1, 11)),
    "more than 20,000 values",
)
text_case("nested without end", b"[" * 30_000, "nested too deeply")
text_case("huge", b"description: " + b"x" * 100_000, "larger than 64 KiB")
space_case("mistyped key", "unknown key 'kernal'; did you mean 'kernels'?", kernal={"whole": [3]})
space_case("even kernel", "kernels.whole[1] is 8, expected an odd number", kernels={"whole": [7, 8]})
space_case("word for a number", "image_size is '32px', expected a valid integer", image_size="32px")
space_case(
    "ratio that leaves nothing",
    "dw_ratio: 0.1 leaves no channel of",
    dw_ratio=[0.1, 1],
    command="search",
)
text_case("tag that does not fit", b"family: !!bool maybe\n", "a value cannot be read")
text_case("date that is none", b"family: !!timestamp x\n", "a value cannot be read")
text_case("number without end", b"family: 0x" + b"f" * 5000 + b"\n", "thousands of digits")
space_case("no choice", "channels.whole is an empty list", channels={"whole": []}, command="search")
space_case("choice twice", "kernels.whole[2] repeats the choice 3", kernels={"whole": [3, 5, 3]})
space_case("too few stages", "blocks.whole[0] is [1]: 1 entries, but `stages` is 2", blocks={"whole": [[1]]})
space_case("unknown family", "family: unknown family 'resnet'; known: ", "replknet", family="resnet", command="search")
space_case("unknown relation", "constraints[0]", "'kernels shrinking'", constraints=["kernels shrinking"])
space_case("bound without number", "constraints[0]", "'params<=lots'", "NAME<=VALUE", constraints=["params<=lots"])
space_case("another stem", "reference_points[0] replknet-31b: stem_stride is 4", reference_points=["replknet-31b"])
space_case(
    "reference point against a constraint",
    "reference_points[0] mine breaks the constraint params<=1K (it has",
    constraints=["params<=1K"],
    reference_points=[{"name": "mine", "kernels": 7}],
    command="search",
)


@case("YAML: nothing keeps the constraints", "none of 20000 random points keeps the constraints params<=10; loosen one")
def _(here: Path) -> list[str]:
    (here / "mine.yaml").write_text(yaml.safe_dump(MICRO | {"constraints": ["params<=10"]}))
    return [*searching(), "--space", "mine.yaml"]


@case("YAML: a folder", "spaces", "is a folder, expected a YAML file")
def _(here: Path) -> list[str]:
    (here / "spaces").mkdir()
    return ["space", "describe", "spaces"]


call("space: mistyped name", ["space", "sample", "replknet-tny"], "'replknet-tny'", "did you mean 'replknet-tiny'?")
call("space: no such file", searching("--space", "none.yaml"), "none.yaml: cannot be read: No such file")
call("space: a name without end", ["space", "check", "x" * 300], "is neither shipped nor a file")

# Wrong flags.

call("flag: no such command", ["serach"], "serach")
call("flag: no such option", ["search", "--buget", "3"], "--buget")
call("flag: no value", ["search", "--budget"], "--budget")
call("flag: not a number", ["search", "--budget", "many"], "--budget", "valid integer")
call("flag: no trial at all", ["search", "--budget", "0"], "--budget", "greater than or equal to 1")
call("flag: negative seed", searching("--seed", "-1"), "--seed")
call("flag: rate zero", searching("--rate", "0"), "--rate", "0")
call("flag: rate nan", searching("--rate", "nan"), "--rate")
call("flag: no cores", searching("--cpus-per-trial", "0"), "--cpus-per-trial")
call("flag: no concurrency", searching("--concurrency", "0"), "--concurrency")
call("flag: epochs", searching("--epochs", "0"), "--epochs")
call("flag: unknown precision", searching("--latency-dtype", "float8"), "--latency-dtype", "float8", "bfloat16")
call("flag: unknown objective", searching("--objectives", "accuracy,speed"), "'speed'", "known: accuracy, flops")
call("flag: objective twice", searching("--objectives", "flops,flops"), "flops,flops", "each once")
call("flag: no objective", searching("--objectives", ""), "score", "known: accuracy")
call("flag: unknown sampler", searching("--sampler", "bayes"), "'bayes'", "known:", "nsga2", "random")
call("flag: constraint without unit", searching("--constraint", "latency<=5"), "'latency<=5'", "'ms'")
call("flag: constraint with <", searching("--constraint", "params<2M"), "'params<2M'", "NAME<=VALUE")
call("flag: constraint on nothing known", searching("--constraint", "depth<=3"), "'depth'", "known: accuracy")
call("flag: two formats", ["front", "run", "--csv", "--json"], "--csv", "--json")
call("flag: trial is no number", ["show", "run", "first"], "TRIAL", "valid integer")
call("flag: sample of nothing", ["space", "sample", "-n", "0"], "--count", "greater than or equal to 1")
call("flag: storage is no URL", searching("--storage", "my.db"), "my.db")
call("flag: GPUs that are no number", searching("--gpus-per-trial", "nan"), "gpus")
call("flag: seed without end", searching("--seed", str(2**64)), "seed", str(2**64))
call(
    "flag: a bound that pareto cannot learn",
    searching("--objectives", "flops,params", "--constraint", "accuracy>=90%"),
    "accuracy>=90.0%",
    "--objectives",
)
call("flag: verify without accuracy", searching("--objectives", "flops,params", "--verify"), "--verify", "accuracy")
call("flag: all trials without csv", ["front", "runs/x", "--all"], "--all", "--csv")
call("flag: storage of another kind", searching("--storage", "redis://here/1"), "redis://here/1", "sqlite:///")
call(
    "flag: storage with a wrong port", searching("--storage", "postgresql://me@here:port/db"), "here:port", "sqlite:///"
)

call(
    "flag: storage in no folder",
    searching("--storage", "sqlite:///no/such/folder/all.db"),
    "sqlite:///no/such/folder/all.db",
    "no folder",
    "make it",
)


@case("flag: storage over a folder", "sqlite:///mine", "is a folder", "name a file in it")
def _(here: Path) -> list[str]:
    (here / "mine").mkdir()
    return searching("--storage", "sqlite:///mine#name")


# Broken data.


def photo(path: Path, side: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def photos(here: Path) -> Path:
    """A sound folder of photographs, to be broken."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            photo(here / "pets" / split / name / "1.png")
            photo(here / "pets" / split / name / "2.jpg")
    return here / "pets"


call("data: unknown kind", searching("--data", "imagenet"), "'imagenet'", "folder:PATH")
call("data: no path", searching("--data", "folder:"), "'folder:'", "path")
call("data: no such folder", searching("--data", "folder:pets"), "pets", "no such folder", "train/CLASS")
call("data: a path without end", searching("--data", "folder:" + "x" * 300), "xxx", "name too long")
call("data: a home that is nobody's", searching("--data", "folder:~nobody-here/pets"), "pets: no such folder")
call("data: unknown option", searching("--data", "digits:sise=64"), "'sise=64'", "size=64")
call("data: option out of range", searching("--data", "digits:size=9000"), "size", "'9000'", "1024")
call("data: digits of another size", searching("--data", "digits:size=64"), "64", "32")
call("data: no archive", searching("--data", "npz:none.npz"), "none.npz", "no such file")


@case("data: no validation", "pets", "no folder val/")
def _(here: Path) -> list[str]:
    photos(here)
    (here / "pets" / "val").rename(here / "pets" / "validation")
    return searching("--data", "folder:pets")


@case("data: a class in validation only", "bird", "train/ has no class of this name", "cat, dog")
def _(here: Path) -> list[str]:
    photo(photos(here) / "val" / "bird" / "1.png")
    return searching("--data", "folder:pets")


@case("data: an empty class", "eel", "no images")
def _(here: Path) -> list[str]:
    (photos(here) / "train" / "eel").mkdir()
    return searching("--data", "folder:pets")


@case("image: cut short", "2.jpg", "mend or remove")
def _(here: Path) -> list[str]:
    file = photos(here) / "val" / "dog" / "2.jpg"
    file.write_bytes(file.read_bytes()[:300])
    return searching("--data", "folder:pets")


@case("image: a text", "1.png", "not an image of a known format")
def _(here: Path) -> list[str]:
    (photos(here) / "train" / "dog" / "1.png").write_text("a dog")
    return searching("--data", "folder:pets")


@case("image: empty", "1.png", "mend or remove")
def _(here: Path) -> list[str]:
    (photos(here) / "train" / "cat" / "1.png").write_bytes(b"")
    return searching("--data", "folder:pets")


@case("image: a bomb", "1.png", "bomb")
def _(here: Path) -> list[str]:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )
    (photos(here) / "train" / "cat" / "1.png").write_bytes(png)
    return searching("--data", "folder:pets")


def archive(here: Path, **changes: Any) -> list[str]:
    """A sound npz archive with arrays changed."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.integers(0, 255, (8, 16, 16, 3), dtype=np.uint8),
        "y_train": np.arange(8) % 2,
        "x_val": rng.integers(0, 255, (4, 16, 16, 3), dtype=np.uint8),
        "y_val": np.arange(4) % 2,
    }
    np.savez(here / "own.npz", **{k: v for k, v in (arrays | changes).items() if v is not None})
    return searching("--data", "npz:own.npz")


@case("npz: an array missing", "own.npz", "x_train, y_train, x_val, y_val expected")
def _(here: Path) -> list[str]:
    return archive(here, y_val=None)


@case("npz: floats", "own.npz", "x_train", "float64, expected uint8")
def _(here: Path) -> list[str]:
    return archive(here, x_train=np.zeros((8, 16, 16, 3)))


@case("npz: labels for other images", "own.npz", "y_train")
def _(here: Path) -> list[str]:
    return archive(here, y_train=np.arange(7) % 2)


@case("npz: a class unknown to the training", "own.npz", "y_val", "9")
def _(here: Path) -> list[str]:
    return archive(here, y_val=np.array([0, 1, 0, 9]))


@case("npz: one class", "own.npz", "two or more")
def _(here: Path) -> list[str]:
    return archive(here, y_train=np.zeros(8, int), y_val=np.zeros(4, int))


@case("npz: images of no known shape", "own.npz", "x_train")
def _(here: Path) -> list[str]:
    return archive(here, x_train=np.zeros((8, 16), np.uint8))


@case("npz: cut short", "own.npz", "not a numpy archive")
def _(here: Path) -> list[str]:
    arguments = archive(here)
    file = here / "own.npz"
    file.write_bytes(file.read_bytes()[:1000])
    return arguments


@case("npz: encrypted", "own.npz", "y_train", "cannot be read", "encrypted")
def _(here: Path) -> list[str]:
    arguments = archive(here)
    content = (here / "own.npz").read_bytes()
    first, *entries = content.split(b"PK\x01\x02")  # of the table of contents; a flag says that one is encrypted
    encrypted = [entry[:4] + b"\x01" + entry[5:] for entry in entries]
    (here / "own.npz").write_bytes(b"PK\x01\x02".join([first, *encrypted]))
    return arguments


class Malicious:
    """Touches a file when it is unpickled by a trusting reader."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@case("npz: a pickle inside", "own.npz", "y_train")
def _(here: Path) -> list[str]:
    return archive(here, y_train=np.array([Malicious()] * 8, dtype=object))


def cifar(here: Path) -> Path:
    """A small CIFAR-10 as the archive holds it."""
    folder = here / "cifar-10-batches-py"
    folder.mkdir()
    batch = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3]}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = [f"class {i}".encode() for i in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return folder


@case("pickle: runs a program", "batches.meta", "refused")
def _(here: Path) -> list[str]:
    (cifar(here) / "batches.meta").write_bytes(pickle.dumps(Malicious()))
    return searching("--data", "cifar10:.")


@case("pickle: runs a program, later", "data_batch_3", "refused")
def _(here: Path) -> list[str]:
    (cifar(here) / "data_batch_3").write_bytes(pickle.dumps({b"data": Malicious()}))
    return searching("--data", "cifar10:.")


@case("pickle: cut short", "data_batch_2", "refused")
def _(here: Path) -> list[str]:
    file = cifar(here) / "data_batch_2"
    file.write_bytes(file.read_bytes()[:200])
    return searching("--data", "cifar10:.")


@case("pickle: no pictures in it", "test_batch", "expected a CIFAR batch")
def _(here: Path) -> list[str]:
    (cifar(here) / "test_batch").write_bytes(pickle.dumps({b"data": [1, 2], b"labels": [0, 1]}, protocol=2))
    return searching("--data", "cifar10:.")


@case("pickle: a label beyond the classes", "data_batch_1", "10")
def _(here: Path) -> list[str]:
    batch = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}
    (cifar(here) / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    return searching("--data", "cifar10:.")


@case("pickle: labels in lists", "data_batch_1", "lists of different lengths", "expected whole numbers")
def _(here: Path) -> list[str]:
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [[0], [1, 2]]}
    (cifar(here) / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    return searching("--data", "cifar10:.")


@case("pickle: a file missing", "data_batch_5", "CIFAR-10")
def _(here: Path) -> list[str]:
    (cifar(here) / "data_batch_5").unlink()
    return searching("--data", "cifar10:.")


@case("pickle: still packed", "cifar.tar.gz", "unpack")
def _(here: Path) -> list[str]:
    (here / "cifar.tar.gz").write_bytes(b"\x1f\x8b")
    return searching("--data", "cifar10:cifar.tar.gz")


# Folders and runs.

call("run: no such folder", ["front", "runs/none"], "runs/none", "no such folder")
call("run: a name without end", ["front", "x" * 300], "xxx", "no such folder")
call("run: a home that is nobody's", ["front", "~nobody-here/run"], "~nobody-here/run", "no such folder")
call("run: no such database", ["front", "sqlite:///none.db"], "none.db", "no such file")
call("run: a URL without a file", ["show", "sqlite://", "0"], "sqlite://", "sqlite:///PATH")
call("export: unknown model", ["export", "replknet-31c"], "replknet-31c", "replknet-31b")
call("export: unknown target", ["export", "replknet-3", "--to", "tflite"], "'tflite'", "known:", "json")
call("export: unknown form", ["export", "replknet-3", "--form", "merged"], "--form", "merged", "deploy")


@case("run: a file in the way", "run", "is a file", "--run")
def _(here: Path) -> list[str]:
    (here / "run").write_text("my notes")
    return searching()


@case("run: a folder that holds no run", "holiday", "no study.db")
def _(here: Path) -> list[str]:
    (here / "holiday").mkdir()
    (here / "holiday" / "notes.txt").write_text("sea")
    return ["front", "holiday"]


@case("run: a study that is none", "study.db", "not a study that can be read")
def _(here: Path) -> list[str]:
    (here / "run").mkdir()
    (here / "run" / "study.db").write_bytes(b"SQLite format 3\0" + b"\x07" * 5000)
    return ["show", "run", "0"]


@case("run: search into a study that is none", "study.db", "not a study that can be read")
def _(here: Path) -> list[str]:
    (here / "run").mkdir()
    (here / "run" / "study.db").write_text("my notes")
    return searching()


@case("run: a study of another program", "'run'", "no study of lkspace")
def _(here: Path) -> list[str]:
    import optuna

    (here / "run").mkdir()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(storage=f"sqlite:///{here}/run/study.db", study_name="theirs")
    return ["front", "run"]


def study(here: Path) -> None:
    """A run of one failed trial."""
    from lkspace.space import SearchSpace
    from lkspace.study import Objective, Plan, Study

    space = SearchSpace.load("replknet-micro")
    setting = {"data": "digits", "size": 32, "classes": 10, "seed": 0}
    plan = Plan(
        "run", space.to_dict(), (Objective("flops", "", "minimize"),), {"flops": 1e9}, setting=setting, budget=1
    )
    written = Study.create(here / "run", plan)
    architecture = next(a for a in space.enumerate() if not any(a.shortcut))
    choices = {v.name: v.choices for v in space.variables}
    number = written.start(written.given(space.params_of(architecture), choices), architecture)
    written.finish(number, "failed", "a test")


@case("run: trials lost", "run", "is not a study that can be read", "malformed")
def _(here: Path) -> list[str]:
    study(here)
    file = here / "run" / "study.db"
    with contextlib.closing(sqlite3.connect(file)) as database:
        (page,) = database.execute("select rootpage from sqlite_master where name = 'trials'").fetchone()
        (size,) = database.execute("pragma page_size").fetchone()
    with file.open("r+b") as disk:
        disk.seek((page - 1) * size)
        disk.write(bytes(size))
    return ["front", "run"]


@case("run: no such trial", "no trial 7", "trials 0 to 0")
def _(here: Path) -> list[str]:
    study(here)
    return ["show", "run", "7"]


@case("run: a folder with a space of one's own", "space.yaml of its own", "--run")
def _(folder: Path) -> list[str]:
    (folder / "run").mkdir()
    (folder / "run" / "space.yaml").write_text("# by hand\n" + yaml.safe_dump(MICRO))
    return ["search", "--space", "run/space.yaml", *searching()[3:]]


@case("run: started otherwise", "run", "objectives", "--run")
def _(here: Path) -> list[str]:
    study(here)
    return searching("--objectives", "params,flops")


@case("page: a file in the way", "front.html", "cannot write the page", "name another file")
def _(here: Path) -> list[str]:
    study(here)
    (here / "mine").write_text("mine")
    return ["front", "run", "--page", "mine/front.html"]


@case("page: over a folder", "mine", "cannot write the page", "name another file")
def _(here: Path) -> list[str]:
    study(here)
    (here / "mine").mkdir()
    return ["front", "run", "--page", "mine"]


@case("export: what the target cannot express", "cannot export", "replknet", "shortcut")
def _(here: Path) -> list[str]:
    study(here)
    return ["export", "run", "0", "--to", "replknet"]


@case("export: a run without a number", "run is a run", "lkspace export run 17")
def _(here: Path) -> list[str]:
    study(here)
    return ["export", "run"]


@case("export: over somebody's file", "mine", "is there already")
def _(here: Path) -> list[str]:
    study(here)
    (here / "mine").mkdir()
    for name in ("architecture.json", "config.json", "lkspace.json"):
        (here / "mine" / name).write_text("mine")
    return ["export", "run", "0", "--to", "json", "--out", "mine"]


@case("export: into a file", "mine", "is a file; name a folder")
def _(here: Path) -> list[str]:
    study(here)
    (here / "mine").write_text("mine")
    return ["export", "run", "0", "--to", "json", "--out", "mine"]


def snapshot(folder: Path) -> dict[str, str]:
    """Everything under a folder, with what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("name", CASES)
def test_bad_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, words = CASES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.import_module("lkspace.search.driver"), "ray_cluster", unwanted)
    arguments = prepare(tmp_path)
    before = snapshot(tmp_path)
    capsys.readouterr()
    code = main(arguments)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    assert len(err) < 700
    for word in words:
        assert word in err, err
    assert out == ""
    assert code == 2
    after = snapshot(tmp_path)
    if "run" in before:
        after.pop("run/.lock", None)  # a run's own, in a folder that was there
    assert after == before


def test_a_folder_that_may_not_be_entered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Python's own questions about a path raise there; root, who runs many a test, never sees it."""

    def forbidden(_: object) -> None:
        raise PermissionError(13, "Permission denied", "/home/her/run")

    monkeypatch.setattr("lkspace.study.Study.open", forbidden)
    assert main(["front", "/home/her/run"]) == 2
    assert capsys.readouterr().err == "error: /home/her/run: Permission denied; name another place\n"


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lkspace.study.Study.open", interrupted)
    assert main(["front", "mine"]) == 130
    assert capsys.readouterr().err == "interrupted; the same command continues\n"


def test_a_folder_of_the_same_name_hides_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    (tmp_path / "runs").mkdir()
    study(tmp_path / "runs")
    (tmp_path / "runs" / "run").rename(tmp_path / "runs" / "pets")
    assert main(["front", "pets", "--json"]) == 0


def unwanted(*_: object, **__: object) -> None:
    raise AssertionError("a wrong call got as far as starting Ray")


def test_there_are_many() -> None:
    assert len(CASES) >= 25
