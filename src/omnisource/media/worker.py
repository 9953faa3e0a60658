"""What runs inside a process of the isolated pool: `python -m omnisource.media.worker FD`."""

import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from omnisource.errors import NO_ROOM
from omnisource.interrupts import end_with
from omnisource.media.limits import MediaError, Reason

GRACE_S = 5.0  # how much longer than the parent's time limit a process lets itself live


def serve(connection: Connection) -> None:
    """Runs functions on items as they arrive until the parent closes the connection.

    In: ("function", function, memory_bytes) or ("item", item, timeout_s). Out: for a function ("ready", None)
    or ("unloadable", message); for an item (None, result) or (reason, message).
    """
    function: Callable[[Any], Any] | None = None
    while True:
        try:
            what, value, limit = connection.recv()
        except EOFError:
            return
        except Exception as error:  # the function can't be imported here, or an item can't be unpickled
            connection.send(("unloadable" if function is None else Reason.ERROR, _one_line(error)))
            continue
        if what == "function":
            function = value
            _limit_memory(limit)
            try:
                connection.send(("ready", None))
            except BrokenPipeError:
                return  # the parent is gone
        elif function is not None and not _answer(connection, function, value, limit):
            return


def _answer(connection: Connection, function: Callable[[Any], Any], item: Any, timeout_s: float) -> bool:
    """Runs one item; False when this process should end."""
    # Should the parent die while a decoder hangs and keeps Python's lock, the default action of SIGALRM ends this one.
    signal.setitimer(signal.ITIMER_REAL, timeout_s + GRACE_S)
    answer = _run(function, item)
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        connection.send(answer)
    except OSError:
        return False  # the parent is gone
    except Exception as error:  # a result that can't be pickled
        connection.send((Reason.ERROR, _one_line(error)))
    return answer[0] is not Reason.MEMORY  # after that, what is left of the heap is not worth trusting


def _run(function: Callable[[Any], Any], item: Any) -> tuple[Reason | None, Any]:
    """(None, result) or (reason, message)."""
    try:
        return None, function(item)
    except MediaError as error:
        return error.reason, error.message
    except MemoryError as error:
        return Reason.MEMORY, _one_line(error)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in NO_ROOM
        return Reason.NO_SPACE if full else Reason.ERROR, _one_line(error)


def _one_line(error: Exception) -> str:
    """The exception and the last line of ours or of the function that it passed through."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def _limit_memory(memory_bytes: int | None) -> None:
    """Lets the heap grow by `memory_bytes`; one huge allocation then fails at once."""
    if memory_bytes is None or not hasattr(resource, "RLIMIT_DATA"):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = _data_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _data_bytes() -> int:
    """Private writable memory of this process; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with(int(sys.argv[1]))
    serve(Connection(int(sys.argv[1])))
