"""The README's examples run as they stand."""

import re
from pathlib import Path

from lkspace.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_space_can_be_searched(tmp_path, capsys):
    (written,) = blocks("yaml")
    (tmp_path / "mine.yaml").write_text(written)
    assert main(["space", "check", str(tmp_path / "mine.yaml")]) == 0, capsys.readouterr().err


def test_the_sampler_in_plain_optuna():
    (example,) = (block for block in blocks("python") if "ParetoSampler" in block)
    names: dict[str, object] = {}
    exec(example, names)
    study = names["study"]

    def objective(trial):
        width, depth = trial.suggest_int("width", 1, 8), trial.suggest_int("depth", 1, 8)
        return 1 - 1 / (width + depth), width * depth

    study.optimize(objective, n_trials=12)
    assert len({tuple(t.params.values()) for t in study.trials}) == 12


def test_the_first_python_example():
    """All of it but what needs a run."""
    example = next(block for block in blocks("python") if "reference(" in block)
    before = example[: example.index("study = ")]
    after = "space = " + example.split("space = ")[1].replace(
        "study.front()[0].architecture", "space.reference_points[0]"
    )
    names: dict[str, object] = {}
    exec(before + after, names)
    assert names["network"].training is False
