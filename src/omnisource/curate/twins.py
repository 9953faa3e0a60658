"""Whether a web sample and a test sample show the same moments: the second look at what features found alike.

Features of single frames tell places apart, and hardly what happens in them: films by one camera are as alike as copies
that were cropped or encoded badly. A copy shows the same things moving at the same times before the same picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnisource.clips.glimpse import Glimpse, read_glimpse
from omnisource.clips.temporal import segment_test
from omnisource.curate.engine import LOCAL, Engine, on_ray
from omnisource.curate.samples import SAMPLE, Sample, frames_between
from omnisource.media import Failure, IsolatedPool, Limits, shared_pool

F32 = npt.NDArray[np.float32]
Box = tuple[slice, slice]  # rows, columns

_SIDE = 48  # pixels of the shorter side
_FRAMES, _MOST = 32, 1024  # of a sample; of a long one a frame every
_EVERY_S = 2.0  # of which two fall into any clip that is worth a look
_SELDOM = 1.5  # times the test film's step: a web film of which so few frames were seen is looked at closer,
_PLACES, _SPARE_S = 3, 0.5  # where the test film may lie in it, and seconds by which that may be wrong,
_CLOSE = 96  # in as many frames as this makes of the test film,
_SAME_CLOSER = 0.8  # and asked for this in motion, the best of very many moments being alike by chance
_ZOOMS = (0.95, 0.9, 0.85)  # shares of the test film's width that a cropped copy may show
_STEPS = 2.0  # grey levels by which a pixel must differ from the standing picture to count as moving
_PART = 0.05  # of a frame's strongest motion is motion too
_BLOCK = 64  # pairs whose frames are in memory
_TILES = 4  # rows and columns of a frame
_FLAT = 2.0  # grey levels; a tile that varies less shows nothing
_NOISE = 1.0  # grey levels that encoding changes
_OVERLAP = 0.7  # of the shorter of two films must be compared
_SAME_MOTION, _SAME_PICTURE = 0.7, 0.8  # correlations
_SAME_MOMENT = 0.8  # correlation of what moves, of a picture and of one frame: there is no second frame to confirm it
_BANDS = ((0.0, 1.0), (0.0, 0.8), (0.2, 1.0))  # of a picture's height: all, and without lines of text below or above
_BAND_MOTION = 0.5  # of what moves in a frame must lie in a band that is to tell
_SAME_STILL = 0.94  # 1 less the largest local difference of two like pictures, in standard deviations


@dataclass(frozen=True, eq=False)
class Shown:
    """Grey frames of a sample, (T, H, W), at times (T,) in seconds."""

    frames: F32
    times: npt.NDArray[np.float64]


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
            for web, test in block:
                first, second = seen[web.sample_id], seen[test.sample_id]
                if first is None or second is None:
                    yield None
                elif _seldom(first, second):
                    yield _within(pool, (web, first), (test, second), limits)
                else:
                    yield same(first, second)


def _read(pool: IsolatedPool, looks: Sequence[tuple[Sample, Glimpse]]) -> list[Shown | None]:
    """What each glimpse shows; None of a file that does not decode."""
    found = [result for _, result in pool.map(read_glimpse, [glimpse for _, glimpse in looks], ordered=True)]
    return [
        None if isinstance(frames, Failure) else shown(sample, glimpse, frames)
        for (sample, glimpse), frames in zip(looks, found, strict=True)
    ]


def _seldom(web: Shown, test: Shown) -> bool:
    """Whether so few frames of a long web film were seen that beside the test film they say too little."""
    films = len(web.frames) > 1 and _moves(test).sum() > 1
    return bool(films and _step_s(web.times) > _SELDOM * _step_s(test.times))


def _within(pool: IsolatedPool, web: tuple[Sample, Shown], test: tuple[Sample, Shown], limits: Limits) -> bool | None:
    """Whether a test film is a part of a long web film: its likeliest places there are looked at moment by moment.

    None: it may lie between the frames that were seen of the web film.
    """
    step = _step_s(web[1].times)
    places = likely_places(web[1], test[1])
    shown_test, *pieces = _read(pool, _looks_closer(web[0], test[0], places, limits))
    if shown_test is None:
        return None
    if any(piece is not None and same(piece, shown_test, _SAME_CLOSER) for piece in pieces):
        return True
    return None if step > test[1].times[-1] - test[1].times[0] and not places else False


def likely_places(web: Shown, test: Shown) -> list[float]:
    """Seconds of the web film at which the test film may begin, the likeliest first.

    What moves is seen before the standing picture of the test film, because that of the whole web film may be another.
    """
    standing = _standing(test)
    mask, there = _moving(test.frames - standing), test.frames - standing
    moves = np.asarray(mask.any((1, 2)))
    begins: dict[float, float] = {}
    for frames in (web.frames, web.frames[:, :, ::-1]):
        here: F32 = np.stack([_resized(frame, standing.shape) for frame in frames])
        motion = _correlations(here - standing, there, mask)
        likeness = motion + _pictures(here, test.frames)
        for begin, here_at, there_at in _offsets(web.times, test.times):
            told = moves[there_at]
            if told.any():
                score = float(np.median(likeness[here_at[told], there_at[told]]))
                begins[begin] = max(score, begins.get(begin, -1.0))
    chosen: list[float] = []
    for begin in sorted(begins, key=lambda begin: -begins[begin]):
        if len(chosen) < _PLACES and all(abs(begin - other) > _step_s(web.times) / 2 for other in chosen):
            chosen.append(begin)
    return chosen


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
    return Shown(frames.astype(np.float32), np.array(glimpse.indices) / (sample.fps or 25.0))


def same(web: Shown, test: Shown, motion: float = _SAME_MOTION) -> bool | None:
    """Whether one is a copy of the other, as it is or mirrored; None: can't be told, as of two pictures.

    Args:
        motion: correlation of what moves in two films that are the same.
    """
    if len(web.frames) == len(test.frames) == 1:
        return None  # features tell single pictures apart better than a correlation does
    views = [web, replace(web, frames=np.ascontiguousarray(web.frames[:, :, ::-1]))]
    films = len(web.frames) > 1 and _moves(test).sum() > 1
    found = [_motion(view, test, motion) if films else _picture(view, test) for view in views]
    if any(likeness is not None and likeness.copy for likeness in found):
        return True
    return None if None in found else False


@dataclass(frozen=True)
class Likeness:
    """How alike two samples are, of which one moment, or all, are compared."""

    motion: float
    """Correlation of what moves; where nothing moves, 1 less the largest local difference in standard deviations."""
    picture: float
    """Correlation of whole frames, as `_pictures` has it."""
    least: float
    """The `motion` from which it is a copy."""

    @property
    def copy(self) -> bool:
        return self.picture >= _SAME_PICTURE and self.motion >= self.least


def _rank(likeness: Likeness) -> tuple[bool, float]:
    return likeness.copy, likeness.motion


def _picture(web: Shown, test: Shown) -> Likeness:
    """A picture, or a film in which nothing moves, beside the frame that is most like it."""
    here, standing, moves = _standing(web), _standing(test), _moves(test)
    frames = test.frames if moves.any() else standing[None]
    fits = [max(_windows(here, frame), key=lambda fit: fit[0]) for frame in frames]
    best = int(np.argmax([closeness for closeness, _ in fits]))
    found = []
    for box in (_whole(standing), fits[best][1]):
        part, there = _resized(here, standing[box].shape)[None], frames[best : best + 1, *box]
        picture = float(_pictures(part, there)[0, 0])
        moment = _moment(part - standing[box], there - standing[box])
        if moment is None:
            found.append(Likeness(1 - _difference(part[0], there[0]), picture, _SAME_STILL))
        else:
            found.append(Likeness(moment, picture, _SAME_MOMENT))
    return max(found, key=_rank)


def _moment(here: F32, there: F32) -> float | None:
    """Correlation of what moves in either of two frames, (1, H, W) less a standing picture; None if nothing in `there`.

    Two-sided: who shows an empty room and somebody in its corner is no copy of the empty room. Text that was added
    moves too, so the best of the bands counts.
    """
    moving = _moving(there)
    if not moving.any():
        return None
    either, energy = moving | _moving(here), there * there * moving
    height = there.shape[1]
    rows = [slice(round(top * height), round(bottom * height)) for top, bottom in _BANDS]
    telling = [at for at in rows if energy[:, at].sum() >= _BAND_MOTION * energy.sum()]
    return max(float(_correlations(here[:, at], there[:, at], either[:, at])[0, 0]) for at in telling)


def _difference(here: F32, there: F32) -> float:
    """The largest local difference of two pictures, but for contrast and brightness, in standard deviations."""
    here, there = here - here.mean(), there - there.mean()
    gain = float((here * there).sum() / max(float((here * here).sum()), 1e-6))
    return float(np.abs(cv2.blur(gain * here - there, (5, 5))).max() / max(float(there.std()), 1.0))


def _standing(film: Shown) -> F32:
    """(H, W): the picture before which things move."""
    return np.median(film.frames, axis=0).astype(np.float32)


def _moves(film: Shown) -> npt.NDArray[np.bool_]:
    """(T,): in which frames something moves."""
    return np.asarray(_moving(film.frames - _standing(film)).any((1, 2)))


def _motion(web: Shown, test: Shown, least: float) -> Likeness | None:
    """Two films at the offset in time at which most moves alike; None where they do not overlap."""
    standing = _standing(test)
    likely = max(_windows(_standing(web), standing), key=lambda fit: fit[0])[1]
    found = []
    for box in (_whole(standing), likely):
        there = test.frames[:, *box]
        here: F32 = np.stack([_resized(frame, there.shape[1:]) for frame in web.frames])
        mask = _moving(there - standing[box])
        motion = _correlations(here - _standing(replace(web, frames=here)), there - standing[box], mask)
        picture = _pictures(here, there)
        most = Likeness(float(motion.max()), float(picture.max()), least)
        if not most.copy:  # not even one moment of the one is like any of the other
            found.append(most)
            continue
        best = _at_one_offset(motion, picture, np.asarray(mask.any((1, 2))), web.times, test.times, least)
        if best is not None:
            found.append(best)
    return max(found, default=None, key=_rank)


def _moving(residual: F32) -> npt.NDArray[np.bool_]:
    """(T, H, W): where something moves, from the frames less their standing picture."""
    energy = np.stack([cv2.blur(frame * frame, (5, 5)) for frame in residual])
    moving: npt.NDArray[np.bool_] = energy > np.maximum(_STEPS**2, _PART * energy.max((1, 2), keepdims=True))
    return moving


def _correlations(first: F32, second: F32, mask: npt.NDArray[np.bool_] | None = None) -> F32:
    """(N, M) correlations of every frame of one film with every frame of the other, within the mask of the other.

    One-sided on purpose: subtitles and logos of the first do not count where nothing moves in the second.
    """
    a, b = (x.reshape(len(x), -1) for x in (first, second))
    m = np.ones_like(b) if mask is None else mask.reshape(len(mask), -1).astype(np.float32)
    noise = _NOISE**2 * m.sum(1)
    products, squares = a @ (b * m).T, ((a * a) @ m.T + noise) * ((b * b * m).sum(1) + noise)
    return np.asarray(products / np.sqrt(squares + 1e-6), np.float32)


def _at_one_offset(
    motion: F32,
    picture: F32,
    moves: npt.NDArray[np.bool_],
    web_s: npt.NDArray[np.float64],
    test_s: npt.NDArray[np.float64],
    least: float,
) -> Likeness | None:
    """Medians of (N, M) correlations over the moments that coincide when one film starts at the best time of the other.

    Args:
        motion, picture: of the frames of the two films.
        moves: (M,) whether something moves in a frame of the second film; only those can tell.
        web_s, test_s: (N,), (M,) times of the frames, evenly spaced.
        least: of the likeness.
    """
    needed = max(2.0, _OVERLAP * min(len(web_s), (test_s[-1] - test_s[0]) / _step_s(web_s)))
    best = None
    for _, here, place in _offsets(web_s, test_s):
        if len(here) < needed:
            continue
        here, place = here[moves[place]], place[moves[place]]
        if len(here) < 2:
            continue
        likeness = Likeness(float(np.median(motion[here, place])), float(np.median(picture[here, place])), least)
        if best is None or likeness.motion > best.motion:
            best = likeness
    return best


def _offsets(
    web_s: npt.NDArray[np.float64], test_s: npt.NDArray[np.float64]
) -> Iterator[tuple[float, npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """When in the first film the second may begin, and the places of the frames that then coincide."""
    step = _step_s(test_s)
    for offset in np.arange(test_s[0] - web_s[-1], test_s[-1] - web_s[0] + step, step / 2):
        moments = web_s + offset
        here = np.flatnonzero((moments > test_s[0] - step / 2) & (moments < test_s[-1] + step / 2))
        yield float(test_s[0] - offset), here, np.abs(moments[here, None] - test_s).argmin(1)


def _step_s(times: npt.NDArray[np.float64]) -> float:
    """Seconds between two frames."""
    return max(float(times[-1] - times[0]) / max(len(times) - 1, 1), 1e-3)


def _whole(frame: F32) -> Box:
    return slice(0, frame.shape[0]), slice(0, frame.shape[1])


def _pictures(first: F32, second: F32) -> F32:
    """(N, M): for every frame of one film and of the other the median correlation of their 16 tiles.

    Subtitles cover few tiles; another place differs in most. Tiles in which the second shows nothing do not count.
    """
    height, width = second.shape[1:]
    tiles = []
    for row, column in product(range(_TILES), repeat=2):
        rows = slice(row * height // _TILES, (row + 1) * height // _TILES)
        columns = slice(column * width // _TILES, (column + 1) * width // _TILES)
        a, b = (x[:, rows, columns] - x[:, rows, columns].mean((1, 2), keepdims=True) for x in (first, second))
        tiles.append(np.where(b.std((1, 2)) < _FLAT, np.nan, _correlations(a, b)))
    tiles.append(np.where(np.isnan(tiles).all(0), 1.0, np.nan))
    median: F32 = np.nanmedian(tiles, axis=0).astype(np.float32)
    return median


def _windows(picture: F32, frame: F32) -> list[tuple[float, Box]]:
    """Where in `frame` the picture may lie: all of it, and the best place at each zoom; with the correlation there."""
    height, width = frame.shape
    sizes = [(height, width)]
    for zoom in _ZOOMS:
        wide = round(width * zoom)
        sizes.append((min(height, round(wide * picture.shape[0] / picture.shape[1])), wide))
    fits = []
    for tall, wide in sizes:
        found = cv2.matchTemplate(frame, _resized(picture, (tall, wide)), cv2.TM_CCOEFF_NORMED)
        _, closeness, _, (left, top) = cv2.minMaxLoc(found)
        fits.append((closeness if np.isfinite(closeness) else 0.0, (slice(top, top + tall), slice(left, left + wide))))
    return fits


def _resized(picture: F32, shape: Sequence[int]) -> F32:
    return np.asarray(cv2.resize(picture, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.float32)
