"""What a worker does: one request in, uint8 pixels out. Needs no torch, so that processes start fast."""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from omnisource.clips import (
    Box,
    Camera,
    Crop,
    centre,
    dense_test,
    dense_train,
    draw_path,
    random_resized_crop,
    read_clip,
    read_moving,
    read_times,
    rng,
    segment_test,
    segment_train,
    snippet_times,
    stride_in,
)
from omnisource.media import DEFAULT_LIMITS, Limits, decode_frames
from omnisource.recipe import Training
from omnisource.train.pool import NEGATIVE, POSITIVE, Frames, Unit

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_KEPT_FRAMES = 320  # of a piece that may be kept decoded: 10 seconds of most videos

# Streams of a slot's key (clips.rng).
TIME, CROP, MOTION, FLIP, STRONG = range(1, 6)


@dataclass(frozen=True)
class Request:
    """Everything that is needed to read one unit."""

    uri: str
    indices: tuple[int, ...]  # frames of the piece; empty when `times_s` says what is read
    times_s: tuple[float, ...]
    motion: npt.NDArray[np.float64] | None  # (T, 3, 3) of a moving camera over an image
    start_s: float
    end_s: float | None
    crop: Crop
    size: int  # side of the network's input, pixels
    short_side: int | None
    limits: Limits
    keeps: int = 0  # frames of the piece, when all of them may be kept decoded
    keys_only: bool = False  # take the key frame at or before each index: prepared videos in training
    into: "Place | None" = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the pixels: (T, H, W, 3)."""
        side = self.size if self.motion is None else round(1.25 * self.size)
        return (len(self.times_s) or len(self.indices), side, side, 3)


@dataclass(frozen=True)
class Place:
    """A piece of memory that is shared with the process that asks."""

    path: str
    token: int  # of the memory; paths are used again
    size: int
    offset: int


@dataclass(frozen=True)
class Reading:
    """How the units of a training are read: its input settings, and what they need from outside."""

    training: Training
    spatial: bool  # 2D network
    camera: Camera | None
    frames: Frames | None
    classes: tuple[str, ...]
    limits: Limits = DEFAULT_LIMITS

    def request(self, unit: Unit, key: int) -> Request:
        """The request for a training slot. `key` decides the window, the snippets, the crop and the camera."""
        given, draw = self.training.input, rng(key, TIME)
        plain = self._plain(unit, partial(random_box, min_area=given.min_area, key=key))
        if unit.kind == "image":
            mode = self.training.camera.mode
            if self.spatial or mode == "still":
                return plain
            label = self.classes[unit.label]
            return replace(plain, motion=draw_path(self.camera, mode, given.frames, rng(key, MOTION), label))
        if unit.kind == "frame":
            return replace(plain, indices=(), times_s=self._snippets(unit, draw))
        if self.spatial:
            indices = segment_train(unit.num_frames, given.frames, draw)
        else:
            stride = stride_in(unit.fps, given.stride, given.fps)
            indices = dense_train(unit.num_frames, given.frames, stride, draw)
        return replace(plain, indices=tuple(indices.tolist()), keys_only=given.prepared)

    def view(self, unit: Unit) -> Request:
        """The request for validation: the middle clip (or segments), scaled to the short side, centre crop."""
        given = self.training.input
        plain = replace(self._plain(unit, centre(given.size)), short_side=max(given.short_side, given.size))
        if unit.kind == "image":
            return plain
        if self.spatial:
            indices = segment_test(unit.num_frames, given.frames)
        else:
            stride = stride_in(unit.fps, given.stride, given.fps)
            indices = dense_test(unit.num_frames, given.frames, stride, 1)[0]
        return replace(plain, indices=tuple(indices.tolist()))

    def _plain(self, unit: Unit, crop: Crop) -> Request:
        given = self.training.input
        return Request(
            uri=unit.uri,
            indices=(0,),
            times_s=(),
            motion=None,
            start_s=unit.start_s,
            end_s=unit.end_s,
            crop=crop,
            size=given.size,
            # Scaling up before a random crop would cost time and change nothing.
            short_side=given.short_side if unit.side and unit.side > given.short_side else None,
            limits=self.limits,
            keeps=_keepable(unit),
        )

    def _snippets(self, unit: Unit, draw: np.random.Generator) -> tuple[float, ...]:
        assert self.frames is not None, "frames are units of 2D networks"
        times, sides, labels = self.frames.of(unit.place)
        kind = self.training.snippets.kind
        assert kind != "window", "windows are no frames"
        positive = (sides == POSITIVE) & (labels == unit.label)
        negative = ~positive if kind == "random" else sides == NEGATIVE
        drawn = snippet_times(
            kind,
            unit.start_s,
            times[positive].tolist(),
            times[negative].tolist(),
            self.training.input.frames,
            draw,
        )
        return tuple(drawn)


def random_box(width: int, height: int, min_area: float, key: int) -> Box:
    """The random resized crop of a slot."""
    return random_resized_crop(width, height, min_area, rng(key, CROP))


def _keepable(unit: Unit) -> int:
    """Frames to keep of a unit: none of a damaged file, where a frame may depend on which others are asked for."""
    return unit.num_frames if unit.sound and unit.num_frames <= _KEPT_FRAMES else 0


class Kept:
    """Decoded frames of small files in memory: what is read again is not decoded again.

    Args:
        max_bytes: of frames. What comes when they are used up is decoded every time.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._pieces: dict[tuple[object, ...], U8] = {}

    def decode(
        self,
        path: str | Path,
        indices: Sequence[int],
        *,
        keeps: int,
        start_s: float = 0.0,
        end_s: float | None = None,
        short_side: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> U8:
        """As decode_frames; `keeps`: frames of the piece."""
        key = (str(path), start_s, end_s, short_side)
        frames = self._pieces.get(key)
        if frames is None:
            every = range(keeps) if self._left > 0 else indices
            frames = decode_frames(path, every, start_s=start_s, end_s=end_s, short_side=short_side, limits=limits)
            if self._left <= 0:
                return frames
            self._pieces[key] = frames
            self._left -= frames.nbytes
        wanted: U8 = frames[list(indices)]
        return wanted


def decode(request: Request, kept: Kept | None = None) -> tuple[U8, F32 | None]:
    """Pixels of `request.shape`, and the camera of a moving image. Raises MediaError."""
    source: Callable[..., U8] = decode_frames
    if request.keys_only:
        source = partial(decode_frames, keys_only=True)
    elif kept is not None and request.keeps:
        source = partial(kept.decode, keeps=1 if request.times_s else request.keeps)
    if request.motion is not None:
        return read_moving(
            request.uri,
            request.motion,
            request.crop,
            request.size,
            short_side=request.short_side,
            limits=request.limits,
            decode=source,
        )
    if request.times_s:
        pixels = read_times(
            request.uri,
            request.times_s,
            request.crop,
            request.size,
            short_side=request.short_side,
            limits=request.limits,
            decode=source,
        )
    else:
        pixels = read_clip(
            request.uri,
            request.indices,
            request.crop,
            request.size,
            short_side=request.short_side,
            start_s=request.start_s,
            end_s=request.end_s,
            limits=request.limits,
            decode=source,
        )
    return pixels, None


def decode_into(request: Request) -> tuple[U8 | None, F32 | None]:
    """`decode` in a worker: the pixels go to `request.into` when there is such a place, else they are returned."""
    pixels, camera = decode(request)
    if request.into is None:
        return pixels, camera
    view = np.frombuffer(_mapped(request.into), np.uint8, pixels.size, request.into.offset)
    view[:] = pixels.reshape(-1)
    return None, camera


_memory: dict[int, mmap.mmap] = {}


def _mapped(place: Place) -> mmap.mmap:
    if place.token not in _memory:
        with Path(place.path).open("r+b") as file:
            _memory[place.token] = mmap.mmap(file.fileno(), place.size)
    return _memory[place.token]
