"""Which frames of a video a network sees: random in training, fixed views in testing.

All functions return frame indices in [0, num_frames). A video shorter than what is asked for is looped (dense clips)
or gives frames twice (segments), as in the reference implementation of the paper's networks.
"""

import math

import numpy as np
import numpy.typing as npt

_SLACK_FRAMES = 1e-6
Indices = npt.NDArray[np.int64]


def stride_in(file_fps: float | None, stride: int, fps: float | None) -> float:
    """Frames of a file between two frames of a clip that are `stride` frames apart at `fps` frames a second.

    Args:
        file_fps: of the file; None: not known.
        fps: None: strides count the file's own frames.
    """
    return stride * file_fps / fps if fps and file_fps else stride


def dense_train(num_frames: int, frames: int, stride: float, rng: np.random.Generator) -> Indices:
    """One clip of `frames` frames, `stride` apart, at a uniformly random place (3D networks).

    A stride between whole numbers takes the frame before each place, so one below 1 takes frames several times.

    Returns:
        (frames,) indices.
    """
    _check(num_frames, frames)
    offsets = _offsets(frames, stride)
    last_start = max(num_frames - 1 - int(offsets[-1]), 0)
    return (int(rng.integers(last_start + 1)) + offsets) % num_frames


def dense_test(num_frames: int, frames: int, stride: float, clips: int) -> Indices:
    """`clips` clips evenly spread from the first to the last possible place; a single one stands in the middle.

    Returns:
        (clips, frames) indices.
    """
    _check(num_frames, frames, clips)
    offsets = _offsets(frames, stride)
    last_start = max(num_frames - 1 - int(offsets[-1]), 0)
    starts = np.array([last_start // 2]) if clips == 1 else np.round(np.arange(clips) * (last_start / (clips - 1)))
    return (starts.astype(np.int64)[:, None] + offsets) % num_frames


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


def _offsets(frames: int, stride: float) -> Indices:
    """Where a clip's frames lie from its first on."""
    if not 0 < stride < math.inf:
        raise ValueError(f"strides must be positive, got {stride}")
    offsets: Indices = np.floor(np.arange(frames) * stride + _SLACK_FRAMES).astype(np.int64)
    return offsets


def _check(*numbers: int) -> None:
    if min(numbers) < 1:
        raise ValueError(f"frames, segments and clips must be at least 1, got {numbers}")
