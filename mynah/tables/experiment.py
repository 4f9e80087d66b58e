"""An experiment of a table, run in a process of its own that has everything imported already.

The process is a fork: importing what training needs takes longer than many an experiment of a table. A crash, memory
and global state end with it. It holds the experiment's claim from before it begins until its outcome is on the disk.
"""

import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from mynah import ROOT
from mynah.tables.plan import OPEN, Run
from mynah.utility.errors import UserError, is_lack_of_memory
from mynah.utility.experiments.folder import RANKS
from mynah.utility.experiments.lock import is_locked, lock_run
from mynah.utility.experiments.provenance import checkpoint_origin

TAKEN = 75
"""Exit status where another process has the experiment."""
LOG_FILE = "log.txt"
LAUNCHERS = ("SLURM_", "TORCHELASTIC_", "OMPI_", "PMI_")
LAUNCHED = (*RANKS, "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher says to its processes: each works on experiments of its own, which are not parts of one run."""

log = logging.getLogger("mynah")


def import_everything() -> None:
    """Import what experiments need, so that their processes have it."""
    import matplotlib.backends.backend_agg  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    import mynah.downstream.training  # noqa: F401


def is_taken(run: Run) -> bool:
    """Whether another process has claimed the experiment."""
    return is_locked(run.claim)


def execute(run: Run, more: Sequence[str] = (), attempt: Callable[[list[str]], str] | None = None) -> bool:
    """Run an experiment to its outcome; False where another process has it.

    more: arguments of run_downstream.py that change no result, such as --device. An interruption of this process lets
    the experiment save its state, and is raised then. attempt: what the new process does with the arguments, by
    default `train_task`; it returns why it failed, or "".
    """
    if attempt is None:
        import_everything()  # once, before the forks
    process = multiprocessing.get_context("fork").Process(target=_run, args=(run, list(more), attempt))
    process.start()
    interrupted = None
    while process.is_alive():
        try:
            process.join()
        except KeyboardInterrupt as interruption:
            if interrupted is not None:
                process.kill()
            interrupted = interruption
            process.terminate()  # of Ctrl-C it has heard as well
    if interrupted is not None:
        raise interrupted
    if process.exitcode == TAKEN:
        return False
    if run.outcome().status == OPEN:
        run.fail(_how_it_ended(process.exitcode))
    return True


def _how_it_ended(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"killed by the signal {name}" + ("; was there too little memory?" if name == "SIGKILL" else "")
    return "stopped before its end, by a signal or trainer.max_time; it can be continued"


def _run(run: Run, more: list[str], attempt: Callable[[list[str]], str] | None) -> None:
    """In the new process: claim the experiment, run it, and note why it failed if it does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run.claim.mkdir(parents=True, exist_ok=True)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        lock_run(run.claim)
    except UserError:
        sys.exit(TAKEN)
    if run.outcome().status != OPEN:  # finished by another process just now
        sys.exit(0)
    if is_locked(run.folder):  # run_downstream.py itself is at it
        sys.exit(TAKEN)
    _write_to(run.folder / LOG_FILE)
    arguments = [*run.arguments(), *more]
    _pretend(arguments)
    if reason := _changed_checkpoint(run) or (attempt or train_task)(arguments):
        run.fail(reason)


def _changed_checkpoint(run: Run) -> str:
    """Why a row's checkpoint is not the one that the table was begun with; "" where it is, or where none can be read,
    of which the experiment itself tells."""
    row = run.row
    try:
        now = (checkpoint_origin(row.checkpoint, row.upstream) or {}).get("sha256")
    except (UserError, OSError):
        return ""
    if row.sha256 is None or now is None or now == row.sha256:
        return ""
    return (
        f"{row.checkpoint} is another checkpoint than when the table was begun (SHA-256 {row.sha256[:12]}..., now "
        f"{now[:12]}...); put that one back and give --retry, or make a row of another label of this one"
    )


def train_task(arguments: list[str]) -> str:
    """Run run_downstream.py in this process; why it failed, "" where it did not."""
    from mynah.commands import downstream

    try:
        status = downstream.run(downstream.parse_arguments("run_downstream.py", arguments))
    except UserError as error:
        reason = str(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # whatever a plugin raises
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0][:300]
        lack = is_lack_of_memory(error)
        reason = f"too little memory ({first})" if lack else f"{type(error).__name__}: {first}"
    else:
        sys.exit(status)
    print(f"error: {reason}", file=sys.stderr)
    return reason


def _write_to(path: Path) -> None:
    """Let everything that this process and its children print go to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _pretend(arguments: list[str]) -> None:
    """Let this process look as one that the arguments started, to run.json and to Lightning, which may start more."""
    script = ROOT / "run_downstream.py"
    main = sys.modules["__main__"]
    if script.is_file():
        main.__spec__ = None
        sys.argv = [str(script), *arguments]
    else:
        sys.argv = [sys.argv[0], "downstream", *arguments]
    for name in list(os.environ):
        if name in LAUNCHED or name.startswith(LAUNCHERS):
            del os.environ[name]
