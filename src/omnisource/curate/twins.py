"""The second look: whether what features found alike are copies, by reading both files.

Features of single frames tell places apart, and hardly what happens in them: films by one camera are as alike as copies
that were cropped or encoded badly. So the frames themselves are compared (moments.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnisource.clips.glimpse import Glimpse, read_glimpse
from omnisource.clips.moments import Shown, compare, compare_closer, step_s
from omnisource.clips.temporal import segment_test
from omnisource.curate.engine import LOCAL, Engine, on_ray
from omnisource.curate.samples import SAMPLE, Sample, frames_between
from omnisource.media import Failure, IsolatedPool, Limits, shared_pool
from omnisource.progress import say

V = TypeVar("V")
_Films = tuple[Shown | None, Shown | None]  # of the web and of the test; None: it does not decode

_SIDE = 48  # pixels of the shorter side
_FRAMES, _MOST = 32, 1024  # of a sample; of a long one a frame every
_EVERY_S = 2.0  # of which two fall into any clip that is worth a look
_BLOCK = 64  # pairs whose frames are in memory
# In a long film a test film's likeliest places are looked at closer:
_SPARE_S = 0.5  # seconds by which a place may be wrong,
_CLOSE = 96  # in as many frames as this makes of the test film


def verify(
    pairs: Sequence[tuple[Sample, Sample]], limits: Limits, memory_bytes: int | None, engine: Engine = LOCAL
) -> Iterator[tuple[int, bool | None]]:
    """For each pair of a web and a test sample its place and whether the first is a copy of the second, as it is or
    mirrored; on a cluster in any order.

    None: can't be told, because a file does not decode or the films do not overlap where they were looked at.

    Args:
        limits, memory_bytes: as for `infer`.
        engine: where to work.
    """
    if engine.kind == "local":
        yield from enumerate(_verdicts(pairs, limits, memory_bytes, engine.workers))
        return
    work = pa.table(
        {
            "place": pa.array(range(len(pairs)), pa.int64()),
            "web": pa.array([asdict(web) for web, _ in pairs], SAMPLE),
            "test": pa.array([asdict(test) for _, test in pairs], SAMPLE),
        }
    )
    workers = engine.workers or max(1, round(engine.cpus))  # an actor for each share of a machine
    for found in on_ray(engine, work, _BlockVerifier, limits, memory_bytes, workers):
        yield from zip(found["place"].to_pylist(), found["copy"].to_pylist(), strict=True)


class _BlockVerifier:
    """Compares blocks of pairs in an actor of a cluster."""

    def __init__(self, limits: Limits, memory_bytes: int | None, workers: int) -> None:
        self._how = limits, memory_bytes, workers

    def __call__(self, block: pa.Table) -> pa.Table:
        columns = (block[name].to_pylist() for name in ("web", "test"))
        pairs = [(Sample(**web), Sample(**test)) for web, test in zip(*columns, strict=True)]
        return pa.table({"place": block["place"], "copy": pa.array(list(_verdicts(pairs, *self._how)), pa.bool_())})


def _verdicts(
    pairs: Sequence[tuple[Sample, Sample]], limits: Limits, memory_bytes: int | None, workers: int | None
) -> Iterator[bool | None]:
    """The verdict of each pair; few files are in memory at a time."""
    with shared_pool(workers, limits.timeout_s, memory_bytes) as pool:
        for block in (pairs[first : first + _BLOCK] for first in range(0, len(pairs), _BLOCK)):
            samples = {sample.sample_id: sample for pair in block for sample in pair}
            looks = _read(pool, [(sample, glimpse_of(sample, limits)) for sample in samples.values()])
            seen = dict(zip(samples, looks, strict=True))
            films = [(seen[web.sample_id], seen[test.sample_id]) for web, test in block]
            for samples_of, shown_of, verdict in zip(block, films, _ask(pool, compare, films), strict=True):
                if isinstance(verdict, list):
                    yield _within(pool, samples_of, shown_of, verdict, limits)
                else:
                    yield verdict


def _read(pool: IsolatedPool, looks: Sequence[tuple[Sample, Glimpse]]) -> list[Shown | None]:
    """What each glimpse shows; None of a file that does not decode."""
    found = [result for _, result in pool.map(read_glimpse, [glimpse for _, glimpse in looks], ordered=True)]
    return [
        None if isinstance(frames, Failure) else shown(sample, glimpse, frames)
        for (sample, glimpse), frames in zip(looks, found, strict=True)
    ]


def _ask(pool: IsolatedPool, question: Callable[[_Films], V], films: Sequence[_Films]) -> list[V | None]:
    """What the question has of each pair; None, and a line about it, where its process was stopped or failed."""
    answers = [answer for _, answer in pool.map(question, films, ordered=True)]
    failed = [answer for answer in answers if isinstance(answer, Failure)]
    if failed:
        say(f"note: {len(failed)} pairs of films could not be compared ({failed[0].reason}: {failed[0].message})")
    return [None if isinstance(answer, Failure) else answer for answer in answers]


def _within(
    pool: IsolatedPool, samples: tuple[Sample, Sample], films: _Films, places: Sequence[float], limits: Limits
) -> bool | None:
    """Whether a test film is a part of a long web film: its likeliest places there are looked at moment by moment.

    None: it may lie between the frames that were seen of the web film.
    """
    test, *pieces = _read(pool, _looks_closer(*samples, places, limits))
    if test is None:
        return None
    if any(_ask(pool, compare_closer, [(piece, test) for piece in pieces])):
        return True
    web_s, test_s = (film.times for film in films if film is not None)
    return None if step_s(web_s) > test_s[-1] - test_s[0] and not places else False


def _looks_closer(web: Sample, test: Sample, places: Sequence[float], limits: Limits) -> list[tuple[Sample, Glimpse]]:
    """The test film, and the pieces of the web film at these places, in frames as close as theirs allow."""
    start, end = test.start_s or 0.0, test.end_s
    seconds = frames_between(test, start, end) / (test.fps or 25.0)
    step = max(1 / min(test.fps or 25.0, web.fps or 25.0), seconds / _CLOSE)
    spans: list[tuple[Sample, float, float | None]] = [(test, start, end)]
    for place in places:
        begin = (web.start_s or 0.0) + max(0.0, place - _SPARE_S)
        last = begin + seconds + 2 * _SPARE_S
        spans.append((web, begin, last if web.end_s is None else min(last, web.end_s)))
    looks = []
    for sample, first, beyond in spans:
        total = frames_between(sample, first, beyond)
        wanted = min(max(2, round(total / (sample.fps or 25.0) / step)), _MOST, total)
        indices = tuple(segment_test(total, wanted).tolist())
        looks.append((sample, Glimpse(sample.uri, indices, first, beyond, _SIDE, limits)))
    return looks


def glimpse_of(sample: Sample, limits: Limits) -> Glimpse:
    """The frames of a sample that are compared."""
    if sample.format == "image":
        return Glimpse(sample.uri, (0,), 0.0, None, _SIDE, limits)
    start = sample.start_s or 0.0
    count = frames_between(sample, start, sample.end_s)
    wanted = min(max(_FRAMES, round(count / (sample.fps or 25.0) / _EVERY_S)), _MOST, count)
    return Glimpse(sample.uri, tuple(segment_test(count, wanted).tolist()), start, sample.end_s, _SIDE, limits)


def shown(sample: Sample, glimpse: Glimpse, frames: npt.NDArray[np.uint8]) -> Shown:
    """What was read of a sample."""
    return Shown(frames, np.array(glimpse.indices) / (sample.fps or 25.0))
