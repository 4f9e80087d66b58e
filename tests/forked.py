"""Programs in processes that are forked from one which has imported the libraries.

A new interpreter takes ten seconds of a core to import torch and Lightning; a fork takes none. The process is as
separate as any: its own session, signals, files and exit status. What it does not show is that the imports work, nor
what depends on the limits of this process or on a pipe: `script(..., fresh=True)` is for that.
"""

import atexit
import contextlib
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import IO

LIBRARIES = ("lightning.pytorch", "torch._dynamo", "torchaudio", "torch.utils.tensorboard", "librosa", "timm", "av")


class ForkedProcess:
    """`subprocess.Popen` for a script of this repository, as far as tests need it."""

    def __init__(self, script: Path, arguments: tuple[str, ...], environment: dict[str, str], output: Path):
        context = get_context("forkserver")
        context.set_forkserver_preload(list(LIBRARIES))
        told = {"SCRIPT": str(script), "ARGUMENTS": arguments, "ENVIRONMENT": environment, "OUTPUT": str(output)}
        self._output = output
        output.touch()
        with one_thread():  # the libraries are imported when the first process is started
            self._process = context.Process(target=runpy.run_path, args=(__file__, told, "forked"))
            self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    @property
    def stdout(self) -> IO[str]:
        """What it has printed so far, warnings and errors among it."""
        return self._output.open(encoding="utf-8")

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("forked process", timeout)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        self.wait(timeout)
        return self._output.read_text(encoding="utf-8"), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def one_thread():
    """Of torch, in processes that are started meanwhile: one with threads must not be forked."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def run(script: str, arguments: tuple[str, ...], environment: dict[str, str], output: str) -> None:
    """In the forked process: be the script."""
    os.setsid()
    set_start_method(None, force=True)  # for its own processes the system's way again, not that of its parent
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(Path(__file__).parents[1])
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))
    status: object = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    # What an interpreter does at its end: a multiprocessing process does not, and would wait for loaders' workers.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "forked":
    run(SCRIPT, ARGUMENTS, ENVIRONMENT, OUTPUT)  # noqa: F821  (ForkedProcess gives them)
