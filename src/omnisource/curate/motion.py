"""Whether two videos show the same thing happening, when single frames of them look alike.

A camera that stands still films one picture again and again, so a perceptual hash takes every scene before it for a
copy of every other. What differs is what moves: the frames less their median over time.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnisource.clips import segment_test
from omnisource.curate.hamming import I64
from omnisource.curate.samples import Sample, frames_between
from omnisource.infer import Request
from omnisource.infer.parts import parts_of, read_part
from omnisource.media import Failure, Limits, shared_pool

_FRAMES, _SIDE, _CROPS = 8, 32, 3  # three squares of a frame cover a wide one
_SECONDS = 60.0  # of a video that are looked at
_NOISE = 0.5  # grey levels by which encoders change a frame that stands still
_ALIKE = 0.5  # correlation: copies that were encoded again reach 0.7 and more, other strokes on one court 0.4


class Motions:
    """What moves in the videos of one table, decoded when it is first asked for; 24 KB are kept of each.

    Args:
        limits, memory_bytes, workers: as for `infer`.
    """

    def __init__(self, limits: Limits, memory_bytes: int | None, workers: int | None) -> None:
        self._limits, self._memory_bytes, self._workers = limits, memory_bytes, workers
        self._seen: dict[int, npt.NDArray[np.uint8] | None] = {}

    def agreeing(self, pairs: Iterable[tuple[I64, I64]], films: pa.Table) -> Iterator[tuple[I64, I64]]:
        """The pairs of videos that move alike; one that can't be decoded moves like none.

        Args:
            pairs: positions in `films`, block after block.
            films: a table of the fields of Sample.
        """
        for earlier, later in pairs:
            self._look(films, np.unique(np.concatenate([earlier, later])).tolist())
            same = [self._alike(a, b) for a, b in zip(earlier.tolist(), later.tolist(), strict=True)]
            which = np.array(same, bool)
            yield earlier[which], later[which]

    def _look(self, films: pa.Table, places: list[int]) -> None:
        wanted = [place for place in places if place not in self._seen]
        requests = [_request(Sample(**row)) for row in films.take(pa.array(wanted, pa.int64())).to_pylist()]
        parts = [next(parts_of(request, _SIDE, _SIDE, self._limits)) for request in requests]
        with shared_pool(self._workers, self._limits.timeout_s, self._memory_bytes) as pool:
            found = [None if isinstance(x, Failure) else x for _, x in pool.map(read_part, parts, ordered=True)]
        self._seen |= zip(wanted, (None if x is None else _grey(x) for x in found), strict=True)

    def _alike(self, a: int, b: int) -> bool:
        first, second = self._seen[a], self._seen[b]
        return first is not None and second is not None and likeness(first, second) >= _ALIKE


def likeness(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """How alike the motion of two films is, -1 to 1.

    For each frame the correlation of what is not in the film's median frame; of these the median, as a fade or a black
    frame may be in one film alone. Two films without motion are alike.

    Args:
        a, b: grey (T, H, W) at equal moments.
    """
    x, y = (film.astype(np.float32) - np.median(film, 0).astype(np.float32) for film in (a, b))
    noise = _NOISE**2 * x[0].size
    xy, xx, yy = ((p * q).sum((1, 2)) + noise for p, q in ((x, y), (x, x), (y, y)))
    return float(np.median(xy / np.sqrt(xx * yy)))


def _request(sample: Sample) -> Request:
    start = sample.start_s or 0.0
    end = min(start + _SECONDS, sample.end_s or sample.duration_s or np.inf)
    count = frames_between(sample, start, end if np.isfinite(end) else None)
    indices = segment_test(count, _FRAMES)[None]
    return Request(sample.sample_id, sample.uri, indices, _CROPS, start_s=start)


def _grey(views: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(crops, T, H, W, 3) -> (T, crops * H, W)."""
    grey: npt.NDArray[np.uint8] = views.mean(-1).round().astype(np.uint8)
    return grey.transpose(1, 0, 2, 3).reshape(_FRAMES, -1, _SIDE)
