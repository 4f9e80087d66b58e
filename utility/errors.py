"""The exception for mistakes that the user can correct, and what is recognized as one."""

import sys
import threading
from typing import Any


class UserError(Exception):
    """A mistake the user can mend; the message says what was given, what was expected and what to do.

    The run scripts print the message without a traceback and exit with status 2.
    """


def ignore_threads(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """A `sys.excepthook` that is silent of broken connections in threads.

    Those of multiprocessing call it where the process at the other end was interrupted.
    """
    if threading.current_thread() is threading.main_thread() or not isinstance(error, OSError):
        sys.__excepthook__(kind, error, trace)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether Python or torch could not allocate what was asked for, on the host or on the GPU."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("allocate memory" in text or "size calculation overflowed" in text))
    )
