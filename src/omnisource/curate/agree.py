"""Asks pairs with like perceptual hashes a second question, for which their files are read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omnisource.curate.hamming import I64
from omnisource.curate.samples import Sample
from omnisource.media import Failure, Limits, shared_pool

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Glance:
    """What is read of a sample, and when two samples agree in it."""

    ask: Callable[[Sample, Limits], Any]
    """What a decoding process is asked for;"""
    read: Callable[[Any], U8]
    """how it reads that, a function of a module;"""
    keep: Callable[[U8], U8]
    """and what stays in memory of it."""
    agree: Callable[[U8, U8], bool]


class Agreement:
    """A question to samples (hamming.Question), each read once.

    Args:
        samples: positions -> these samples, in that order.
        limits, memory_bytes, workers: as for `infer`.
    """

    def __init__(
        self,
        glance: Glance,
        samples: Callable[[I64], Iterable[Sample]],
        limits: Limits,
        memory_bytes: int | None,
        workers: int | None,
    ) -> None:
        self._glance, self._samples, self._limits = glance, samples, limits
        self._memory_bytes, self._workers = memory_bytes, workers
        self._seen: dict[int, U8 | None] = {}

    def read(self, places: I64) -> None:
        """Reads those samples that were not read yet."""
        glance = self._glance
        wanted = np.array([place for place in places.tolist() if place not in self._seen], np.int64)
        if not len(wanted):
            return
        asked = [glance.ask(sample, self._limits) for sample in self._samples(wanted)]
        with shared_pool(self._workers, self._limits.timeout_s, self._memory_bytes) as pool:
            found = [result for _, result in pool.map(glance.read, asked, ordered=True)]
        kept = (None if isinstance(frames, Failure) else glance.keep(frames) for frames in found)
        self._seen |= zip(wanted.tolist(), kept, strict=True)

    def agree(self, earlier: int, later: int) -> bool:
        """Whether they agree; a sample that can't be decoded agrees with none."""
        first, second = self._seen[earlier], self._seen[later]
        return first is not None and second is not None and self._glance.agree(first, second)

    def forget(self, places: I64) -> None:
        """Nobody asks about these any more."""
        for place in places.tolist():
            del self._seen[place]
