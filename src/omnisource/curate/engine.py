"""Where a stage's work is done: on this machine, or on a Ray cluster."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from omnisource.errors import UserError

_ROWS = 256  # of the table of work that one task takes
_KNOCK_S = 10.0
_RETRIES = 10  # of a task or actor whose machine is lost


@dataclass(frozen=True)
class Engine:
    """Where to work. The result does not depend on it."""

    kind: Literal["local", "ray"] = "local"
    address: str | None = None
    """Of the Ray cluster; None: the one that this machine belongs to, else one of its own."""
    workers: int | None = None
    """Decoding processes on each machine; None: one for each CPU."""
    actors: tuple[int, int] = (1, 64)
    """Fewest and most copies of a network on a cluster."""
    cpus: float = 1.0
    gpus: float = 0.0
    """What one copy of a network takes of its machine."""


LOCAL = Engine()


def on_ray(
    engine: Engine, work: pa.Table, make: Callable[..., Callable[[pa.Table], pa.Table]], *arguments: Any
) -> Iterator[pa.Table]:
    """Runs `make(*arguments)` in actors of a Ray cluster and feeds them the rows of `work`, in blocks.

    Yields the resulting tables, one a block, as they come, in any order. `make` and the arguments are pickled once and
    travel to each actor; actors start and stop with the amount of work. When a machine is lost its blocks are done
    elsewhere.

    Raises:
        UserError: Ray is not installed, or the cluster can't be reached.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("--engine ray: Ray is not installed; pip install 'omnisource[ray]'") from None
    if not ray.is_initialized():
        _check_address(engine.address)
        ray.init(address=engine.address, log_to_driver=False, logging_level="warning")
    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = False
    settings.max_errored_blocks = 0  # bad media is a row with a reason; an exception is a fault and must be seen
    blocks = [work.slice(start, _ROWS) for start in range(0, work.num_rows, _ROWS)]
    if not blocks:
        return
    results = ray.data.from_arrow(blocks).map_batches(
        _Actor,
        fn_constructor_args=(make, arguments),
        batch_size=None,
        batch_format="pyarrow",
        concurrency=(engine.actors[0], min(engine.actors[1], len(blocks))),
        num_cpus=engine.cpus,
        num_gpus=engine.gpus or None,
        max_restarts=_RETRIES,
        max_task_retries=_RETRIES,
    )
    for found in results.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from map(_unpacked, found["table"].to_pylist())


def _check_address(address: str | None) -> None:
    """Knocks at a host:port at once; Ray itself would try for minutes and then end the process."""
    host, separator, port = (address or "").removeprefix("ray://").rpartition(":")
    if not address or address == "auto":
        return
    try:
        if not separator:
            raise ValueError("write it as host:port")
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
    except (OSError, ValueError) as error:
        raise UserError(f"--address: no Ray cluster at {address} ({error})") from None


class _Actor:
    """One copy of the work on the cluster."""

    def __init__(self, make: Callable[..., Callable[[pa.Table], pa.Table]], arguments: tuple[Any, ...]) -> None:
        self._run = make(*arguments)

    def __call__(self, rows: pa.Table) -> pa.Table:
        return pa.table({"table": pa.array([_packed(self._run(rows))], pa.large_binary())})


def _packed(table: pa.Table) -> bytes:
    """A table as one value, which Ray does not divide: of a sample whose rows came in parts a killed stage would take
    the first for all of them."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _unpacked(packed: bytes) -> pa.Table:
    with pa.ipc.open_stream(packed) as reader:
        return reader.read_all()
