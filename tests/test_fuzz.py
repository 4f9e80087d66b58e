"""Some of the inputs of `tests/fuzz.py`, which makes as many as are asked for."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("fuzz.py")


def test_no_loader_fails_on_damaged_files_but_by_saying_so():
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--count", "3"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\nthe last input: {done.stderr[-3000:]}"
    assert "no fault" in done.stdout
