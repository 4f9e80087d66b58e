"""One run at a time in an experiment's folder."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mynah import ROOT
from mynah.utility.errors import UserError
from mynah.utility.experiments.lock import is_locked, lock_run, unlock_run

HOLD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from mynah.utility.experiments.lock import lock_run
lock_run(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


LOOK = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from mynah.utility.experiments.lock import is_locked
print("looking", flush=True)
while True:
    is_locked(Path(sys.argv[1]))
"""


@pytest.fixture
def holder(tmp_path):
    path = ROOT if (ROOT / "mynah").is_dir() else ROOT.parent
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(UserError, match=rf"is being written by process {holder.pid} on \S+ since 20\d\d-"):
        lock_run(tmp_path)


def test_the_lock_ends_with_a_killed_process(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    lock_run(tmp_path)
    unlock_run(tmp_path)


def test_a_process_may_lock_again_what_it_holds_or_has_given_back(tmp_path):
    for _ in range(2):
        lock_run(tmp_path)
        lock_run(tmp_path)
        unlock_run(tmp_path)
    unlock_run(tmp_path)
    started = time.monotonic()
    lock_run(tmp_path)
    unlock_run(tmp_path)
    assert time.monotonic() - started < 5


def test_who_only_looks_whether_a_folder_is_locked_keeps_no_run_from_locking_it(tmp_path):
    lock_run(tmp_path)  # from now on the file is there
    unlock_run(tmp_path)
    path = ROOT if (ROOT / "mynah").is_dir() else ROOT.parent
    process = subprocess.Popen([sys.executable, "-c", LOOK, tmp_path, path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "looking\n"
        for _ in range(300):
            lock_run(tmp_path)
            unlock_run(tmp_path)
    finally:
        process.kill()
        process.communicate()


def test_a_lock_that_may_not_be_opened_is_held_by_nobody(tmp_path, monkeypatch):
    (tmp_path / "run.lock").touch()

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert not is_locked(tmp_path)


def test_a_lock_is_seen_by_others_as_long_as_its_process_lives(holder, tmp_path):
    assert is_locked(tmp_path)
    holder.kill()
    holder.wait()
    assert not is_locked(tmp_path) and not is_locked(tmp_path / "no_such_folder")
