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
    """

    def __init__(self, device: torch.device) -> None:
        self._threads = torch.get_num_threads()
        self.count = min(self._threads, _MOST_LANES) if device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(self.count, "lane", torch.set_num_threads, (self._threads // self.count,))

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Has a lane do it, as soon as one is free."""
        return self._pool.submit(work)

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self.count > 1:
            torch.set_num_threads(self._threads)  # what lanes set for themselves is in part set for all
