"""The scripts in benchmarks/ are run by hand, hours apart: here only that each can begin."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_every_script_imports_what_there_is() -> None:
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert len(names) > 10
    # As a script sees its neighbours. One process: most of the time goes into torch.
    lines = ["import sys", f"sys.path.insert(0, {str(FOLDER)!r})", *(f"import {name}" for name in names)]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
