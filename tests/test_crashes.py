"""Some of the crashes of `tests/crashes.py`, which runs them all."""

import subprocess
import sys
from pathlib import Path

EVERY = 130


def test_runs_that_crash_while_writing_end_as_the_run_left_alone():
    program = Path(__file__).with_name("crashes.py")
    command = [sys.executable, str(program), "--every", str(EVERY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no difference" in done.stdout
