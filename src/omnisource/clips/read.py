"""From a file to the pixels that a network sees: the one way for training, scoring and testing."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from omnisource.clips.camera import aim
from omnisource.clips.spatial import Box, view_boxes
from omnisource.media import DEFAULT_LIMITS, Limits, decode_frames

U8 = npt.NDArray[np.uint8]
_ANTIALIAS_FROM = 1.6  # pixels of the crop for one of the result
Crop = Callable[[int, int], Box]  # (width, height) of the decoded frame -> what to keep of it
Decode = Callable[..., U8]  # decode_frames, or something that gives the same frames faster


def read_clip(
    path: str | Path,
    indices: Sequence[int] | npt.NDArray[np.int64],
    crop: Crop,
    size: int,
    *,
    short_side: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
    decode: Decode = decode_frames,
) -> U8:
    """One clip of a video, or an image as a clip of one frame (indices [0]), cropped and resized.

    Args:
        indices: (T,) frames in any order, repeats allowed; index 0 is the first frame at or after `start_s`.
        crop: chooses the box once the frame's size is known; it holds for all frames. For instance
            `partial(random_resized_crop, min_area=0.08, rng=rng(key))`, or `centre(224)`.
        size: side of the result.
        short_side: frames are scaled to this before the crop; None keeps their size.
        start_s, end_s: the piece of the file that counts, in seconds.
        decode: where the frames come from, for callers that keep decoded files.

    Returns:
        uint8 (T, size, size, 3).

    Raises:
        MediaError: the file can't be decoded within the limits.
    """
    frames, place = _decode_once(path, np.asarray(indices), short_side, start_s, end_s, limits, decode)
    box = crop(frames.shape[2], frames.shape[1])
    return _cut(frames, box, size)[place]


def read_times(
    path: str | Path,
    times_s: Sequence[float],
    crop: Crop,
    size: int,
    *,
    short_side: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    decode: Decode = decode_frames,
) -> U8:
    """The first frame at or after each of `times_s`: the snippets of an untrimmed video.

    Returns:
        uint8 (T, size, size, 3); all frames have the same box.
    """
    unique = sorted(set(times_s))
    frames = [decode(path, [0], start_s=at, short_side=short_side, limits=limits)[0] for at in unique]
    height, width = frames[0].shape[:2]
    # A video may change its size on the way; all snippets get that of the first.
    frames = [f if f.shape[:2] == (height, width) else cv2.resize(f, (width, height)) for f in frames]
    place = [unique.index(at) for at in times_s]
    return _cut(np.stack(frames), crop(width, height), size)[place]


def read_moving(
    path: str | Path,
    motion: npt.NDArray[np.float64],
    crop: Crop,
    size: int,
    *,
    short_side: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    decode: Decode = decode_frames,
) -> tuple[U8, npt.NDArray[np.float32]]:
    """An image for a clip of a moving camera; the device makes the clip of it (augment, with `size`).

    Args:
        motion: (T, 3, 3) of draw_path.
        crop: what the first frame shows; moved or made smaller so that the camera stays inside of the image (aim).
        size: side of the clip. The picture has a quarter more, as it holds more than a frame shows.

    Returns:
        uint8 (1, 1.25 size, 1.25 size, 3) and the camera, float32 (T, 3, 3).
    """
    frame = decode(path, [0], short_side=short_side, limits=limits)
    height, width = frame.shape[1:3]
    part, camera = aim(width, height, crop(width, height), motion)
    return _cut(frame, part, round(1.25 * size)), camera


def read_views(
    path: str | Path,
    clips: npt.NDArray[np.int64],
    *,
    crops: int,
    size: int,
    short_side: int,
    start_s: float = 0.0,
    end_s: float | None = None,
    flow: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> U8:
    """All views of the test protocol, decoding every frame once.

    Args:
        clips: (K, T) frame indices of K clips (temporal.dense_test; segment_test with a leading axis).
        crops: 1, 3, 5 or 10 per clip (spatial.view_boxes).
        size: side of a crop, taken from frames scaled to `short_side` without resizing it.
        flow: the pixels are displacements, x first: where a crop is mirrored, x changes its sign.

    Returns:
        uint8 (K * crops, T, size, size, 3), all crops of the first clip first.
    """
    frames, place = _decode_once(path, clips, short_side, start_s, end_s, limits)
    boxes = view_boxes(frames.shape[2], frames.shape[1], size, crops)
    views = np.empty((len(clips), len(boxes), clips.shape[1], size, size, 3), np.uint8)
    for number, box in enumerate(boxes):
        view = _cut(frames, box, size)
        if flow and box.mirrored:
            view = np.concatenate([255 - view[..., :1], view[..., 1:]], axis=-1)
        views[:, number] = view[place]
    return views.reshape(-1, *views.shape[2:])


def centre(size: int) -> Crop:
    """The middle square of side `size` (validation, scoring)."""
    return partial(_centre, size=size)  # not a lambda: crops travel to worker processes


def _centre(width: int, height: int, size: int) -> Box:
    return view_boxes(width, height, size, 1)[0]


def _decode_once(
    path: str | Path,
    indices: npt.NDArray[np.int64],
    short_side: int | None,
    start_s: float,
    end_s: float | None,
    limits: Limits,
    decode: Decode = decode_frames,
) -> tuple[U8, npt.NDArray[np.int64]]:
    """The distinct frames among `indices`, and for each index its position among them."""
    unique, place = np.unique(indices, return_inverse=True)
    frames = decode(path, unique.tolist(), start_s=start_s, end_s=end_s, short_side=short_side, limits=limits)
    return frames, place.reshape(indices.shape)


def _cut(frames: U8, box: Box, size: int) -> U8:
    """The box of every frame (T, H, W, C), resized to (T, size, size, C) with antialiasing."""
    part = frames[:, box.top : box.bottom, box.left : box.right]
    if box.mirrored:
        part = part[:, :, ::-1]
    if part.shape[1:3] == (size, size):
        return part
    # Area averaging is OpenCV's antialiasing, seven times slower. Below this ratio bilinear weights leave no pixel out.
    shrinks = max(box.width, box.height) > _ANTIALIAS_FROM * size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    out = np.empty((len(part), size, size, part.shape[3]), np.uint8)
    for source, target in zip(part, out, strict=True):
        cv2.resize(source, (size, size), dst=target, interpolation=method)
    return out
