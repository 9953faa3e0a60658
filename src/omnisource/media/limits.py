"""What a media file may cost, and the one exception that bad media raises."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self

_MIB = 1024**2


class Reason(StrEnum):
    """Why a media file, or one piece of work in the isolated pool, gave no result. The whole list."""

    MISSING = "missing"  # no such file, or it went away while it was read
    UNREADABLE = "unreadable"  # permissions, an I/O error, or a directory, device or pipe
    EMPTY = "empty"  # zero bytes
    CHANGED = "changed"  # the file changed while it was read, or since it was probed
    NOT_MEDIA = "not_media"  # the content is something else: HTML, text, an archive, noise
    WRONG_KIND = "wrong_kind"  # media, but not of the kind that was asked for
    UNSUPPORTED = "unsupported"  # media of a known kind without a decoder here
    NO_VIDEO = "no_video"  # a container without a picture track
    CORRUPT = "corrupt"  # the container cannot be opened, or too little of it decodes
    TRUNCATED = "truncated"  # the file ends too early
    NO_FRAMES = "no_frames"  # not one picture in the asked range decodes
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_LONG = "too_long"
    TOO_MANY_BYTES = "too_many_bytes"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    NO_SPACE = "no_space"  # what was to be written did not fit: a full disk or quota, no fault of the file
    CRASHED = "crashed"  # the process that worked on it died
    ERROR = "error"  # the function raised something that is not about media: a fault of ours


class MediaError(Exception):
    """A media file gave no result. `reason` is one of a fixed list, `message` says it in one line."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class Stated(Protocol):
    """The limits of a recipe (`probe.limits`)."""

    max_pixels: int
    max_duration_s: float
    max_bytes: int
    timeout_s: float


@dataclass(frozen=True)
class Limits:
    """The most that one media file may cost. A file beyond a limit raises MediaError before it is decoded."""

    max_pixels: int = 50_000_000  # width * height of one picture; 8K video has 33 million
    max_duration_s: float = 4 * 3600.0
    max_bytes: int = 8 * 1024 * _MIB  # file size
    timeout_s: float = 60.0  # wall time of one call; checked between packets
    memory_bytes: int = 1024 * _MIB  # decoded pixels that one call may return

    @classmethod
    def of(cls, stated: Stated, memory_bytes: int | None = None) -> Self:
        """What a recipe states. Its `memory_bytes` is how much the process that decodes may grow; only where one call
        may return as much is it `memory_bytes` here."""
        most = cls.memory_bytes if memory_bytes is None else memory_bytes
        return cls(stated.max_pixels, stated.max_duration_s, stated.max_bytes, stated.timeout_s, most)

    def check_pixels(self, width: int, height: int) -> None:
        """Raises MediaError when a picture of `width` x `height` is over the limit."""
        if width * height > self.max_pixels:
            raise MediaError(
                Reason.TOO_MANY_PIXELS, f"{width}x{height} is more than {self.max_pixels} pixels a picture"
            )

    def check_memory(self, count: int, width: int, height: int) -> None:
        """Raises MediaError when `count` RGB pictures of `width` x `height` are over the memory limit."""
        need = count * width * height * 3
        if need > self.memory_bytes:
            raise MediaError(
                Reason.MEMORY,
                f"{count} pictures of {width}x{height} need {need // _MIB} MiB, limit {self.memory_bytes // _MIB} MiB",
            )


DEFAULT_LIMITS = Limits()
