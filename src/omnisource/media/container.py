"""An opened video file: its picture track, its packets, and its frames made upright RGB."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import av
import numpy as np
import numpy.typing as npt
from av.stream import Discard, Disposition
from av.video.reformatter import VideoReformatter

from omnisource.media.image import describe, scaled_size
from omnisource.media.limits import Limits, MediaError, Reason
from omnisource.media.sniff import Kind
from omnisource.media.source import Source

U8 = npt.NDArray[np.uint8]

# Containers that FFmpeg may open. Playlists and scripts (hls, concat, dash, sdp ...) name other files: left
# out.
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,m4v,ogg,ivf,obu,h264,hevc,mjpeg,nut,mxf,dv,rm,wtv"
)
_PATTERN = frozenset("%*?{")
_DEFAULT_FPS = 25  # where a file does not tell
_OPEN_TIMEOUT_S = 30.0
_MAX_READ_ERRORS = 64  # a damaged file is read on after an error, but not for ever


@dataclass
class Video:
    """An opened file with a picture track. Times are seconds since the track's first frame."""

    container: Any  # av.container.InputContainer
    stream: Any  # av.video.stream.VideoStream
    source: Source
    limits: Limits
    deadline: float  # time.monotonic() after which reading stops
    read_errors: int = 0  # errors met by packets()
    decode_errors: int = 0  # errors met by decode()
    orientation: npt.NDArray[np.int64] | None = None  # of the first frame that to_rgb gave; for `upright`
    _size: tuple[int, int] | None = None  # (width, height) of what to_rgb gives
    _moved: bool = False  # no longer at the beginning
    # One converter for all frames: making a new one for each halves the speed.
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter)
    _thumbnailer: VideoReformatter = field(default_factory=VideoReformatter)

    @property
    def has_times(self) -> bool:
        """False for AVI with B-frames: it stores no times of display, and FFmpeg guesses them wrong."""
        return not ("avi" in self.container.format.name and self.stream.codec_context.has_b_frames)

    @property
    def start_pts(self) -> int:
        return self.stream.start_time or 0

    @property
    def frame_s(self) -> float:
        """Duration of a frame by the header's frame rate, in seconds."""
        return 1 / float(self.stream.guessed_rate or _DEFAULT_FPS)

    @property
    def ticks_per_frame(self) -> int:
        """The same in units of the track's time base."""
        return max(1, round(self.frame_s / float(self.stream.time_base)))

    def seconds(self, pts: int) -> float:
        return float((pts - self.start_pts) * self.stream.time_base)

    def exact_pts(self, seconds: float) -> float:
        return self.start_pts + seconds / float(self.stream.time_base)

    def pts_at(self, seconds: float) -> int:
        """The first time stamp that is not before `seconds` (a microsecond of slack for rounding)."""
        return math.ceil(self.exact_pts(seconds - 1e-6))

    @property
    def seekable(self) -> bool:
        """False for MPEG program streams: they time only some frames; after a seek FFmpeg guesses the others wrong."""
        return str(self.container.format.name) != "mpeg"

    def seek(self, seconds: float | None) -> None:
        """Goes to a key frame at or before `seconds`, or near it; None: to the beginning."""
        if seconds is None and not self._moved:
            return
        self._moved = True
        try:
            if seconds is None and self.container.format.name in ("mpeg", "mpegts"):
                self.container.seek(0, unsupported_byte_offset=True)
            else:
                self.container.seek(self.pts_at(seconds or 0.0), stream=self.stream, backward=True)
        except (av.error.FFmpegError, ValueError, OverflowError):
            self.read_errors += 1

    def packets(self) -> Iterator[Any]:
        """The packets of the picture track from here on, read past errors. MediaError at the deadline."""
        errors, self._moved = 0, True
        while errors <= _MAX_READ_ERRORS:
            try:
                for packet in self.container.demux(self.stream):
                    self.check_time()
                    if packet.size == 0 and packet.dts is None and packet.pts is None:
                        return  # PyAV ends with an empty packet
                    yield packet
                return
            except av.error.ExitError as error:
                raise MediaError(Reason.TIMEOUT, f"{self.source.url}: reading took too long") from error
            except MemoryError:
                raise
            except (av.error.FFmpegError, ValueError):
                errors += 1
                self.read_errors += 1

    def decode(self, packet: Any | None) -> list[Any]:
        """Frames that come out of the decoder for `packet` (None drains it); damaged packets give none."""
        self.check_time()
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.error.EOFError:
            return []
        except MemoryError:
            raise
        except (av.error.FFmpegError, ValueError):
            self.decode_errors += 1
            return []
        return [frame for frame in frames if frame.width and frame.height]

    def frames(self) -> Iterator[Any]:
        """Every frame from here on, in order of display."""
        for packet in self.packets():
            yield from self.decode(packet)
        yield from self.decode(None)

    def flush(self) -> None:
        """Forgets the decoder's state, so that it can go on at another key frame."""
        self.stream.codec_context.flush_buffers()

    def to_rgb(self, frame: Any, short_side: int | None) -> U8:
        """One frame as uint8 (H, W, 3), resized but not yet upright; all get the size that the first one had."""
        self.limits.check_pixels(frame.width, frame.height)
        if self._size is None:
            self._size = scaled_size(frame.width, frame.height, short_side)
            self.limits.check_pixels(*self._size)
        rgb = self._reformatter.reformat(frame, *self._size, format="rgb24", threads=1)
        if self.orientation is None:
            # Only the first frame is asked, and its small copy: PyAV's side data and its frame refer to each other, so
            # that a frame so asked lives until Python's garbage collector comes by.
            self.orientation = orientation(rgb)
        array = cast(U8, rgb.to_ndarray())
        return array

    def restart_clock(self) -> None:
        """Gives the next piece of work the whole time limit."""
        self.deadline = time.monotonic() + self.limits.timeout_s

    def thumbnail(self, frame: Any, side: int) -> U8:
        """One frame as uint8 (side, side) grey, averaged; not upright."""
        grey = self._thumbnailer.reformat(frame, side, side, format="gray", interpolation="AREA", threads=1)
        return cast(U8, grey.to_ndarray())

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise MediaError(Reason.TIMEOUT, f"{self.source.url}: more than {self.limits.timeout_s:g} s of work")


class _Unnamed:
    """A file of which FFmpeg sees the bytes alone."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def open_video(source: Source, kind: Kind, limits: Limits) -> Iterator[Video]:
    """Opens a video file whose size and duration are within the limits. Raises MediaError."""
    if kind.family not in ("video", "audio"):
        raise MediaError(
            Reason.WRONG_KIND if kind.is_media else Reason.NOT_MEDIA,
            f"{source.url} is {kind.format}, not a video",
        )
    if kind.family == "audio":
        raise MediaError(Reason.NO_VIDEO, f"{source.url} is {kind.format}, which holds no pictures")
    with _video_errors(source.url):
        # "file:" keeps FFmpeg from reading a protocol into a name such as "concat:a". In a name such as "a%05d.jpg" it
        # would still read a pattern of many files' names.
        plain = source.path is not None and not _PATTERN.intersection(str(source.path))
        name = f"file:{source.path}" if plain else _Unnamed(source.open())
        options = {
            "format_whitelist": _CONTAINERS,
            "protocol_whitelist": "file",
            # FFmpeg may decode a frame while it opens a file; that it may go beyond our limit lets us name the size.
            "max_pixels": str(8 * limits.max_pixels),
        }
        timeout = min(_OPEN_TIMEOUT_S, limits.timeout_s)
        with av.open(name, options=options, timeout=timeout, metadata_errors="replace") as container:
            stream = next((s for s in container.streams.video if _is_pictures(s)), None)
            if stream is None:
                raise MediaError(Reason.NO_VIDEO, f"{source.url} has no picture track")
            context = stream.codec_context
            if context is None:
                raise MediaError(Reason.UNSUPPORTED, f"{source.url}: no decoder for its picture track")
            limits.check_pixels(context.width, context.height)
            _check_duration(source, container, stream, limits)
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = Discard.all
            context.thread_count = 1
            context.options = {"max_pixels": str(_decoder_pixels(limits))}
            yield Video(container, stream, source, limits, time.monotonic() + limits.timeout_s)


def claimed_duration_s(container: Any, stream: Any) -> float | None:
    """What the header says about the duration of the picture track, or None."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def is_hidden(packet: Any) -> bool:
    """Whether a packet's frame is never shown: cut away by an edit list, or a VP8 reference frame."""
    return bool(packet.is_discard) or (
        packet.stream.codec_context.name in ("vp8", "libvpx") and not memoryview(packet)[0] & 0x10
    )


def orientation(frame: Any) -> npt.NDArray[np.int64]:
    """The frame's display matrix as a signed 2x2 permutation: (x', y') = M (x, y), else the identity.

    Rotations by a multiple of 90 degrees and mirrorings are such matrices; others are ignored, as players do.
    """
    identity = np.eye(2, dtype=np.int64)
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return identity
    matrix = np.frombuffer(bytes(side_data), np.int32)[:9].reshape(3, 3)[:2, :2].T
    signs = np.where(np.abs(matrix) > np.abs(matrix).max() / 2, np.sign(matrix), 0).astype(np.int64)
    return signs if abs(round(np.linalg.det(signs))) == 1 and np.abs(signs).sum() == 2 else identity


def upright(pictures: U8, matrix: npt.NDArray[np.int64] | None) -> U8:
    """Applies `orientation` to pictures (..., H, W, 3); None: they are upright."""
    if matrix is None:
        return pictures
    if matrix[0, 0] == 0:  # width and height change places
        pictures = np.swapaxes(pictures, -3, -2)
    if matrix[0].sum() < 0:
        pictures = pictures[..., ::-1, :]
    if matrix[1].sum() < 0:
        pictures = pictures[..., ::-1, :, :]
    return np.ascontiguousarray(pictures)


def _decoder_pixels(limits: Limits) -> int:
    """The decoder counts padded macroblocks, so its limit is a little wider than ours."""
    return limits.max_pixels + limits.max_pixels // 8 + 65536


def _is_pictures(stream: Any) -> bool:
    return not stream.disposition & Disposition.attached_pic


def _check_duration(source: Source, container: Any, stream: Any, limits: Limits) -> None:
    claimed = claimed_duration_s(container, stream)
    if claimed is not None and claimed > limits.max_duration_s:
        raise MediaError(Reason.TOO_LONG, f"{source.url} claims {claimed:.0f} s, limit {limits.max_duration_s:.0f} s")


@contextmanager
def _video_errors(url: str) -> Iterator[None]:
    """Turns what PyAV raises into MediaError."""
    try:
        yield
    except MediaError:
        raise
    except av.error.ExitError as error:
        raise MediaError(Reason.TIMEOUT, f"{url}: opening or reading took too long") from error
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
        raise MediaError(Reason.UNSUPPORTED, f"{url}: {describe(error)}") from error
    except FileNotFoundError as error:
        raise MediaError(Reason.MISSING, f"{url} does not exist") from error
    except PermissionError as error:
        raise MediaError(Reason.UNREADABLE, f"{url}: permission denied") from error
    except MemoryError as error:
        raise MediaError(Reason.MEMORY, f"{url}: not enough memory to decode it") from error
    except (av.error.FFmpegError, OSError, UnicodeError, OverflowError) as error:
        raise MediaError(Reason.CORRUPT, f"{url}: {describe(error)}") from error
