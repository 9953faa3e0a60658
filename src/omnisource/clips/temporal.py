"""Which frames of a video a network sees: random in training, fixed views in testing.

All functions return frame indices in [0, num_frames). A video shorter than what is asked for is looped (dense clips)
or gives frames twice (segments), as in the reference implementation of the paper's networks.
"""

import math

import numpy as np
import numpy.typing as npt

_SLACK_FRAMES = 1e-6
Indices = npt.NDArray[np.int64]


def dense_train(num_frames: int, frames: int, stride: int, rng: np.random.Generator) -> Indices:
    """One clip of `frames` frames, `stride` apart, at a uniformly random place (3D networks).

    Returns:
        (frames,) indices.
    """
    _check(num_frames, frames, stride)
    last_start = max(num_frames - _span(frames, stride), 0)
    return (int(rng.integers(last_start + 1)) + np.arange(frames) * stride) % num_frames


def dense_test(num_frames: int, frames: int, stride: int, clips: int) -> Indices:
    """`clips` clips evenly spread from the first to the last possible place; a single one stands in the middle.

    Returns:
        (clips, frames) indices.
    """
    _check(num_frames, frames, stride, clips)
    last_start = max(num_frames - _span(frames, stride), 0)
    starts = np.array([last_start // 2]) if clips == 1 else np.round(np.arange(clips) * (last_start / (clips - 1)))
    return (starts.astype(np.int64)[:, None] + np.arange(frames) * stride) % num_frames


def segment_train(num_frames: int, segments: int, rng: np.random.Generator) -> Indices:
    """One random frame from each of `segments` equal parts of the video (TSN).

    The parts have real-valued borders, so every frame of the video can be drawn.

    Returns:
        (segments,) indices, ascending.
    """
    _check(num_frames, segments)
    places = (np.arange(segments) + rng.random(segments)) * (num_frames / segments)
    return np.minimum(places.astype(np.int64), num_frames - 1)


def segment_test(num_frames: int, segments: int) -> Indices:
    """The middle frame of each of `segments` equal parts of the video (TSN).

    Returns:
        (segments,) indices, ascending.
    """
    _check(num_frames, segments)
    part = num_frames / segments
    return (np.arange(segments) * part + part / 2).astype(np.int64)


def piece_frames(start_s: float | None, end_s: float | None, fps: float | None, num_frames: int | None) -> int:
    """Frames of a video that lie in [start_s, end_s); None: its beginning, its end.

    Args:
        fps, num_frames: of the whole video; without them a piece counts as one frame.

    Returns:
        At least 1.
    """
    if not fps or not num_frames:
        return max(num_frames or 1, 1)
    # A frame that begins at the border, up to rounding of time stamps, belongs to the piece that begins there.
    first = math.ceil((start_s or 0.0) * fps - _SLACK_FRAMES)
    last = num_frames if end_s is None else min(math.ceil(end_s * fps - _SLACK_FRAMES), num_frames)
    return max(last - first, 1)


def _span(frames: int, stride: int) -> int:
    """Frames of the video from a clip's first to its last."""
    return (frames - 1) * stride + 1


def _check(*numbers: int) -> None:
    if min(numbers) < 1:
        raise ValueError(f"frames, strides, segments and clips must be at least 1, got {numbers}")
