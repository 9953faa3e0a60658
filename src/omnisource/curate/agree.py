"""Asks pairs with like perceptual hashes a second question, for which their files are read."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

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
    """A question to the samples of one table, each read when it is first asked.

    Args:
        limits, memory_bytes, workers: as for `infer`.
    """

    def __init__(self, glance: Glance, limits: Limits, memory_bytes: int | None, workers: int | None) -> None:
        self._glance, self._limits = glance, limits
        self._memory_bytes, self._workers = memory_bytes, workers
        self._seen: dict[int, U8 | None] = {}

    def agreeing(self, pairs: Iterable[tuple[I64, I64]], samples: pa.Table) -> Iterator[tuple[I64, I64]]:
        """The pairs that agree; a sample that can't be decoded agrees with none.

        Args:
            pairs: positions in `samples`, block after block.
            samples: a table of the fields of Sample.
        """
        for earlier, later in pairs:
            self._look(samples, np.unique(np.concatenate([earlier, later])).tolist())
            same = [self._agree(a, b) for a, b in zip(earlier.tolist(), later.tolist(), strict=True)]
            which = np.array(same, bool)
            yield earlier[which], later[which]

    def _look(self, samples: pa.Table, places: list[int]) -> None:
        glance = self._glance
        wanted = [place for place in places if place not in self._seen]
        rows = samples.take(pa.array(wanted, pa.int64())).to_pylist()
        asked = [glance.ask(Sample(**row), self._limits) for row in rows]
        with shared_pool(self._workers, self._limits.timeout_s, self._memory_bytes) as pool:
            found = [result for _, result in pool.map(glance.read, asked, ordered=True)]
        kept = (None if isinstance(frames, Failure) else glance.keep(frames) for frames in found)
        self._seen |= zip(wanted, kept, strict=True)

    def _agree(self, a: int, b: int) -> bool:
        first, second = self._seen[a], self._seen[b]
        return first is not None and second is not None and self._glance.agree(first, second)
