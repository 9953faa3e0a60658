"""Several forward passes side by side on a CPU."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch

T = TypeVar("T")

_MOST_LANES = 4  # each holds the activations of one forward pass


class Lanes:
    """Threads that each compute with their share of the threads that PyTorch has.

    Inside an operator PyTorch's threads wait for each other, at its end, without sleeping. Where decoders want the same
    cores, one of them is always late. Whole forward passes side by side need not wait.

    A context manager. A thread that first uses PyTorch before its end has as few threads as a lane, for good.

    Args:
        device: lanes are for a CPU; of a GPU there is one.
        threads: of one forward pass on a CPU, as its last bits depend on them; None: as many as there are to share.
    """

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        self._threads = torch.get_num_threads()
        on_cpu = device.type == "cpu"
        self.strict = on_cpu and threads is not None
        """Whether every forward pass must run in a lane, as only there it has the threads asked for."""
        self.count = max(1, min(self._threads // (threads or 1), _MOST_LANES)) if on_cpu else 1
        each = threads if on_cpu and threads is not None else self._threads // self.count
        self._pool = ThreadPoolExecutor(self.count, "lane", torch.set_num_threads, (each,))

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Has a lane do it, as soon as one is free."""
        return self._pool.submit(work)

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self.count > 1 or self.strict:
            torch.set_num_threads(self._threads)  # what lanes set for themselves is in part set for all
