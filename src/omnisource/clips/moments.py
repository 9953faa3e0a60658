"""Whether the frames of a web sample and of a test sample show the same moments.

A copy shows the same things moving at the same times before the same picture. Comparing two films takes as long as
decoding one, so decoding processes do that too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Box = tuple[slice, slice]  # rows, columns

_SELDOM = 1.5  # times the test film's step: a web film of which so few frames were seen must be looked at closer,
_PLACES = 3  # where the test film may lie in it
_ZOOMS = (0.95, 0.9, 0.85)  # shares of the test film's width that a cropped copy may show
_STEPS = 2.0  # grey levels by which a pixel must differ from the standing picture to count as moving
_PART = 0.05  # of a frame's strongest motion is motion too
_TILES = 4  # rows and columns of a frame
_FLAT = 2.0  # grey levels; a tile that varies less shows nothing
_NOISE = 1.0  # grey levels that encoding changes
_OVERLAP = 0.7  # of the shorter of two films must be compared
_SAME_MOTION, _SAME_PICTURE = 0.7, 0.8  # correlations
_SAME_CLOSER = 0.8  # asked for in motion where the best of very many moments are alike by chance
_SAME_MOMENT = 0.8  # correlation of what moves, of a picture and of one frame: there is no second frame to confirm it
_BANDS = ((0.0, 1.0), (0.0, 0.8), (0.2, 1.0))  # of a picture's height: all, and without lines of text below or above
_BAND_MOTION = 0.5  # of what moves in a frame must lie in a band that is to tell
_SAME_STILL = 0.94  # 1 less the largest local difference of two like pictures, in standard deviations


@dataclass(frozen=True, eq=False)
class Shown:
    """Grey frames of a sample, (T, H, W), 0 to 255, at times (T,) in seconds."""

    frames: npt.NDArray[np.uint8] | F32
    times: npt.NDArray[np.float64]

    @cached_property
    def grey(self) -> F32:
        """The frames, to be computed with."""
        return self.frames.astype(np.float32)

    @cached_property
    def standing(self) -> F32:
        """(H, W): the picture before which things move."""
        return _median(self.grey)

    @cached_property
    def moving(self) -> Bools:
        """(T, H, W): where something moves."""
        return _moving(self.grey - self.standing)

    @cached_property
    def moves(self) -> Bools:
        """(T,): in which frames something does."""
        return np.asarray(self.moving.any((1, 2)))

    def mirrored(self) -> "Shown":
        """The same, left and right exchanged."""
        return Shown(np.ascontiguousarray(self.grey[:, :, ::-1]), self.times)


def compare(pair: tuple[Shown | None, Shown | None]) -> bool | list[float] | None:
    """As `same`; where too few frames of a long web film were seen, the places at which to look closer.

    Args:
        pair: of the web and of the test; None: it does not decode.
    """
    web, test = pair
    if web is None or test is None:
        return None
    return likely_places(web, test) if _seen_seldom(web, test) else same(web, test)


def compare_closer(pair: tuple[Shown | None, Shown | None]) -> bool | None:
    """As `same`, for a place in a long film: the best of very many moments are alike by chance."""
    web, test = pair
    return None if web is None or test is None else same(web, test, _SAME_CLOSER)


def same(web: Shown, test: Shown, motion: float = _SAME_MOTION) -> bool | None:
    """Whether one is a copy of the other, as it is or mirrored; None: can't be told, as of two pictures.

    Args:
        motion: correlation of what moves in two films that are the same.
    """
    if len(web.frames) == len(test.frames) == 1:
        return None  # features tell single pictures apart better than a correlation does
    films = len(web.frames) > 1 and test.moves.sum() > 1
    found = [_motion(view, test, motion) if films else _picture(view, test) for view in (web, web.mirrored())]
    return True if True in found else None if None in found else False


def _seen_seldom(web: Shown, test: Shown) -> bool:
    """Whether so few frames of a long web film were seen that beside the test film they say too little."""
    films = len(web.frames) > 1 and test.moves.sum() > 1
    return bool(films and step_s(web.times) > _SELDOM * step_s(test.times))


def likely_places(web: Shown, test: Shown) -> list[float]:
    """Seconds of the web film at which the test film may begin, the likeliest first.

    What moves is seen before the standing picture of the test film, because that of the whole web film may be another.
    """
    standing, mask, moves = test.standing, test.moving, test.moves
    there = test.grey - standing
    views = []
    for frames in (web.grey, web.grey[:, :, ::-1]):
        here: F32 = np.stack([_resized(frame, standing.shape) for frame in frames])
        views.append(_correlations(here - standing, there, mask) + _pictures(here, test.grey))
    likeness = np.stack(views, -1)
    begins: dict[float, float] = {}
    for begin, here_at, there_at in _offsets(web.times, test.times):
        told = moves[there_at]
        if told.any():
            begins[begin] = float(_median(likeness[here_at[told], there_at[told]]).max())
    chosen: list[float] = []
    for begin in sorted(begins, key=lambda begin: -begins[begin]):
        if len(chosen) < _PLACES and all(abs(begin - other) > step_s(web.times) / 2 for other in chosen):
            chosen.append(begin)
    return chosen


def _picture(web: Shown, test: Shown) -> bool:
    """Whether a picture, or a film in which nothing moves, is the frame that is most like it."""
    here, standing, moves = web.standing, test.standing, test.moves
    frames = test.grey if moves.any() else standing[None]
    fits = [max(_windows(here, frame), key=lambda fit: fit[0]) for frame in frames]
    best = int(np.argmax([closeness for closeness, _ in fits]))
    for box in (_whole(standing), fits[best][1]):
        part, there = _resized(here, standing[box].shape)[None], frames[best : best + 1, *box]
        if float(_pictures(part, there)[0, 0]) < _SAME_PICTURE:
            continue
        moment = _moment(part - standing[box], there - standing[box])
        if moment is None and 1 - _difference(part[0], there[0]) >= _SAME_STILL:
            return True
        if moment is not None and moment >= _SAME_MOMENT:
            return True
    return False


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


def _motion(web: Shown, test: Shown, least: float) -> bool | None:
    """Whether two films are one at the offset in time at which most moves alike; None where they do not overlap.

    Args:
        least: correlation of what moves in two films that are the same.
    """
    likely = max(_windows(web.standing, test.standing), key=lambda fit: fit[0])[1]
    whole = _motion_in(_whole(test.standing), web, test, least)
    part = whole or _motion_in(likely, web, test, least)
    return False if part is None and whole is False else part


def _motion_in(box: Box, web: Shown, test: Shown, least: float) -> bool | None:
    """As `_motion`, of a film of which the web shows the part in the box."""
    there, standing = test.grey[:, *box], test.standing[box]
    here: F32 = np.stack([_resized(frame, standing.shape) for frame in web.grey])
    mask = _moving(there - standing)
    motion = _correlations(here - _median(here), there - standing, mask)
    if float(motion.max()) < least:  # not even one moment of the one is like any of the other
        return False
    picture = _pictures(here, there)
    if float(picture.max()) < _SAME_PICTURE:
        return False
    best = _best_offset(motion, np.asarray(mask.any((1, 2))), web.times, test.times)
    if best is None:
        return None
    return float(_median(motion[best])) >= least and float(_median(picture[best])) >= _SAME_PICTURE


def _moving(residual: F32) -> Bools:
    """(T, H, W): where something moves, from the frames less their standing picture."""
    energy = np.stack([cv2.blur(frame * frame, (5, 5)) for frame in residual])
    moving: Bools = energy > np.maximum(_STEPS**2, _PART * energy.max((1, 2), keepdims=True))
    return moving


def _correlations(first: F32, second: F32, mask: Bools | None = None) -> F32:
    """(N, M) correlations of every frame of one film with every frame of the other, within the mask of the other.

    One-sided on purpose: subtitles and logos of the first do not count where nothing moves in the second.
    """
    a, b = (x.reshape(len(x), -1) for x in (first, second))
    m = np.ones_like(b) if mask is None else mask.reshape(len(mask), -1).astype(np.float32)
    noise = _NOISE**2 * m.sum(1)
    products, squares = a @ (b * m).T, ((a * a) @ m.T + noise) * ((b * b * m).sum(1) + noise)
    return np.asarray(products / np.sqrt(squares + 1e-6), np.float32)


def _best_offset(
    motion: F32, moves: Bools, web_s: npt.NDArray[np.float64], test_s: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]] | None:
    """Which frames of two films coincide when one starts at that time of the other at which most moves alike.

    Args:
        motion: (N, M) correlations of the frames of the two films.
        moves: (M,) whether something moves in a frame of the second film; only those can tell.
        web_s, test_s: (N,), (M,) times of the frames, evenly spaced.

    Returns:
        Places in `motion`; None where the films do not overlap.
    """
    needed = max(2.0, _OVERLAP * min(len(web_s), (test_s[-1] - test_s[0]) / step_s(web_s)))
    most, best = -np.inf, None
    for _, here, place in _offsets(web_s, test_s):
        if len(here) < needed:
            continue
        here, place = here[moves[place]], place[moves[place]]
        if len(here) < 2:
            continue
        alike = float(_median(motion[here, place]))
        if alike > most:
            most, best = alike, (here, place)
    return best


def _offsets(
    web_s: npt.NDArray[np.float64], test_s: npt.NDArray[np.float64]
) -> Iterator[tuple[float, npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """When in the first film the second may begin, and the places of the frames that then coincide."""
    step = step_s(test_s)
    for offset in np.arange(test_s[0] - web_s[-1], test_s[-1] - web_s[0] + step, step / 2):
        moments = web_s + offset
        here = np.flatnonzero((moments > test_s[0] - step / 2) & (moments < test_s[-1] + step / 2))
        yield float(test_s[0] - offset), here, np.abs(moments[here, None] - test_s).argmin(1)


def step_s(times: npt.NDArray[np.float64]) -> float:
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
    return _nanmedian(np.asarray(tiles, np.float32))


def _median(values: F32) -> F32:
    """The median along the first axis; sorted, as numpy's own is several times slower."""
    ordered, count = np.sort(values, axis=0), len(values)
    return np.asarray((ordered[(count - 1) // 2] + ordered[count // 2]) / 2, np.float32)


def _nanmedian(values: F32) -> F32:
    """The median along the first axis of what is not NaN; something has to be."""
    ordered = np.sort(values, axis=0)  # NaN last
    known = np.count_nonzero(~np.isnan(ordered), axis=0)[None]
    below, above = (np.take_along_axis(ordered, at, axis=0)[0] for at in ((known - 1) // 2, known // 2))
    return np.asarray((below + above) / 2, np.float32)


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
