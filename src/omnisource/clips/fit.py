"""Fits the moving camera to real videos: fixed number of frame pairs, their homographies, one Gaussian."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnisource.clips.camera import MIN_PAIRS, Camera, fit_gaussian
from omnisource.clips.keys import rng
from omnisource.clips.motion import Floats, homography, to_movement
from omnisource.clips.temporal import stride_in
from omnisource.errors import UserError
from omnisource.media import DEFAULT_LIMITS, Failure, IsolatedPool, Limits, decode_frames
from omnisource.progress import meter

_WORKING_SHORT_SIDE = 240  # pictures are decoded at about the size at which they are compared


@dataclass(frozen=True)
class Footage:
    """A labelled piece of a real video."""

    path: str
    label: str
    num_frames: int
    start_s: float = 0.0
    end_s: float | None = None
    short_side: int | None = None  # of its frames, in pixels; None: unknown
    fps: float | None = None  # None: unknown

    def step(self, stride: int, fps: float | None) -> int:
        """The whole number of frames, at least 1, that lies nearest to a stride counted at `fps` frames a second."""
        return max(1, round(stride_in(self.fps, stride, fps)))


@dataclass(frozen=True)
class _Pair:
    footage: Footage
    first: int
    second: int
    limits: Limits


def fit_camera(
    footage: Sequence[Footage],
    pairs: int,
    stride: int,
    seed: int = 0,
    *,
    fps: float | None = None,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Camera, dict[str, Any]]:
    """Measures the camera's movement between `pairs` pairs of frames, `stride` apart, and fits Gaussians to it.

    Pieces and frames are drawn at random; a piece is drawn again only when all have been, a pair of frames only when
    all of its piece have been. Pairs without a trustworthy homography, or from files that don't decode, are left out
    and counted by reason.

    Returns:
        The camera, and what was measured: counts of pairs by outcome, and quantiles of the corners' movements.

    Raises:
        UserError: too few pairs gave a homography.
    """
    usable = [piece for piece in footage if piece.num_frames > piece.step(stride, fps)]
    if not usable:
        raise UserError(
            f"camera: none of {len(footage)} target training videos is longer than the stride of {stride} frames; "
            "set camera.mode to still, or name a fitted camera in camera.fitted"
        )
    steps = [piece.step(stride, fps) for piece in usable]
    places = _places([piece.num_frames - step for piece, step in zip(usable, steps, strict=True)], pairs, seed)
    asked = [_Pair(usable[i], first, first + steps[i], limits) for i, first in places]
    found: dict[str, list[Floats]] = defaultdict(list)
    outcomes: Counter[str] = Counter()
    with IsolatedPool(workers, timeout_s=limits.timeout_s) as pool, meter("camera", len(asked)) as bar:
        for pair, outcome in pool.map(_measure, asked, ordered=True):
            if isinstance(outcome, Failure):
                outcomes[outcome.reason.value] += 1
            elif isinstance(outcome, str):
                outcomes[outcome] += 1
            else:
                outcomes["used"] += 1
                found[pair.footage.label].append(outcome)
            bar.advance()
    everything = [movement for movements in found.values() for movement in movements]
    if len(everything) < MIN_PAIRS:
        left_out = ", ".join(f"{name} {count}" for name, count in outcomes.most_common() if name != "used")
        raise UserError(
            f"camera: only {len(everything)} of {pairs} frame pairs gave a homography ({left_out}), {MIN_PAIRS} are "
            "needed; raise camera.pairs, set camera.mode to still, or name a fitted camera in camera.fitted"
        )
    movements = np.array(everything)
    camera = Camera(
        stride,
        fit_gaussian(movements),
        {label: fit_gaussian(np.array(own)) for label, own in sorted(found.items()) if len(own) >= MIN_PAIRS},
        fps,
    )
    largest = np.abs(movements).max(axis=1)
    measured = {
        "pairs": dict(sorted(outcomes.items())),
        "largest_corner_movement": {f"{q:g}": float(np.quantile(largest, q)) for q in (0.1, 0.5, 0.9, 0.99)},
    }
    return camera, measured


def _places(firsts: Sequence[int], pairs: int, seed: int) -> Iterator[tuple[int, int]]:
    """Pieces by number, and the first frame of a pair in each; piece i has `firsts[i]` frames that may be one."""
    draw = rng(seed)
    each, more = divmod(pairs, len(firsts))
    for turn, i in enumerate(draw.permutation(len(firsts))):
        wanted = each + (turn < more)
        for begin in range(0, wanted, firsts[i]):
            for first in draw.choice(firsts[i], min(firsts[i], wanted - begin), replace=False):
                yield int(i), int(first)


def _measure(pair: _Pair) -> Floats | str:
    """The corner movements between two frames, or why there are none."""
    piece = pair.footage
    smaller = piece.short_side is not None and piece.short_side > _WORKING_SHORT_SIDE
    earlier, later = decode_frames(
        piece.path,
        [pair.first, pair.second],
        start_s=piece.start_s,
        end_s=piece.end_s,
        short_side=_WORKING_SHORT_SIDE if smaller else None,
        limits=pair.limits,
    )
    found = homography(earlier, later)
    return found.value if isinstance(found, str) else to_movement(found)
