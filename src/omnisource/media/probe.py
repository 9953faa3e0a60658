"""What a media file really holds, as opposed to what its name and header say."""

import math
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from omnisource.media.container import Video, claimed_duration_s, is_hidden, open_video, orientation
from omnisource.media.fingerprint import THUMB, file_sha256, perceptual_hash
from omnisource.media.image import U8, frame_times, open_image, to_array
from omnisource.media.limits import DEFAULT_LIMITS, Limits, MediaError, Reason
from omnisource.media.sniff import Kind, sniff_source
from omnisource.media.source import Source, open_source

# All thresholds of this file are ours; the paper gives none.
_SAMPLED_KEYS = 8  # groups of pictures that the fast path looks into
_SAMPLED_RUN = 8  # frames it decodes in each
_BLACK_LEVEL = 32  # a picture whose 99th percentile of grey is not above this is black
_STILL_LEVEL = 4  # thumbnails whose greys all differ by less show the same picture
_LOST_SLACK_S = 0.5  # a header may claim this much more than there is before it counts as a loss
_EXIF_ORIENTATION = 274
_EXIF_DEGREES = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}


@dataclass(frozen=True)
class MediaFacts:
    """What is in a file. For an audio-only file the fields about pictures are zero or empty."""

    kind: Literal["image", "video"]
    container: str  # "mp4", "matroska", "jpeg", ...
    codec: str
    pixel_format: str
    width: int  # upright, after rotation
    height: int
    rotation: int  # degrees clockwise that make the stored picture upright: 0, 90, 180 or 270
    fps: float | None  # mean; None for a single picture
    variable_fps: bool
    num_frames: int  # counted, not taken from the header
    duration_s: float  # from the first frame to the end of the last
    start_time_s: float  # time stamp of the first frame in the file
    decodable_share: float  # of the frames that the file announces, in [0, 1]
    first_bad_s: float | None  # when the first announced frame that does not decode would be shown
    still: bool  # more than one frame, and all look the same
    black: bool
    one_frame: bool  # a video of one frame
    audio_only: bool
    bytes: int
    sha256: str
    phash: str  # 64 bits as 16 hexadecimal digits, of the frame in the middle; "" without pictures

    @property
    def flags(self) -> list[str]:
        """Names of the flags that are set."""
        return [name for name in ("still", "black", "one_frame", "audio_only") if getattr(self, name)]


def probe_media(path: str | Path, limits: Limits = DEFAULT_LIMITS, thorough: bool = False) -> MediaFacts:
    """Examines a file by its content. The fast way reads all packets but decodes a sample of frames; `thorough`
    decodes every frame.

    Raises MediaError when the file can't be read, is not media, is over a limit, changes meanwhile, or when nothing
    in it decodes. Damage that leaves something is reported in `decodable_share` and `first_bad_s`.
    """
    source = open_source(path, limits.max_bytes)
    kind = sniff_source(source)
    deadline = time.monotonic() + limits.timeout_s
    if kind.family == "image":
        facts = _probe_image(source, kind, limits, thorough, file_sha256(source, deadline))
    elif kind.family in ("video", "audio"):
        facts = _probe_video(source, kind, limits, thorough, file_sha256(source, deadline))
    else:
        raise MediaError(Reason.NOT_MEDIA, f"{source.url} is {kind.format}, neither image nor video")
    source.check_unchanged()
    if facts.duration_s > limits.max_duration_s:  # by its time stamps, whatever its header claims
        raise MediaError(
            Reason.TOO_LONG, f"{source.url} lasts {facts.duration_s:.0f} s, limit {limits.max_duration_s:.0f} s"
        )
    return facts


def _probe_image(source: Source, kind: Kind, limits: Limits, thorough: bool, sha256: str) -> MediaFacts:
    with open_image(source, limits) as image:
        times, end = frame_times(image, limits)
        count = len(times)
        wanted = range(count) if thorough else sorted({0, count // 2, count - 1})
        look, middle = _Look(), np.zeros((THUMB, THUMB), np.uint8)
        for index in wanted:
            if count > 1:
                image.seek(index)
            picture = to_array(image, 2 * THUMB if index else None, limits)  # the first whole: it must decode
            thumb = np.asarray(Image.fromarray(picture).convert("L").resize((THUMB, THUMB), Image.Resampling.BOX))
            look.add(thumb)
            middle = thumb if index <= count // 2 else middle
            if index == 0:
                height, width = picture.shape[:2]
        gaps = np.diff(times)
        return MediaFacts(
            kind="image",
            container=kind.format,
            codec=kind.format,
            pixel_format=image.mode,
            width=width,
            height=height,
            rotation=_EXIF_DEGREES.get(image.getexif().get(_EXIF_ORIENTATION, 1), 0),
            fps=count / end if end else None,
            variable_fps=bool(count > 2 and np.ptp(gaps) > 0.1 * np.median(gaps)),
            num_frames=count,
            duration_s=end,
            start_time_s=0.0,
            decodable_share=1.0,
            first_bad_s=None,
            still=look.still,
            black=look.black,
            one_frame=False,
            audio_only=False,
            bytes=source.bytes,
            sha256=sha256,
            phash=perceptual_hash(middle),
        )


def _probe_video(source: Source, kind: Kind, limits: Limits, thorough: bool, sha256: str) -> MediaFacts:
    try:
        with open_video(source, kind, limits) as video:
            track = _read_track(video)
        if not thorough and track.timed:  # without time stamps only a decoding from the beginning can count
            with _open_strict(source, kind, limits) as video:
                seen = _decode_sample(video, track)
                # "Still" is said only of a video that was looked at in full.
                if not (seen.look.still and len(track.shown) > seen.count):
                    return _video_facts(video, track, seen, source, kind, sha256)
        with _open_strict(source, kind, limits) as video:
            return _video_facts(video, track, _decode_all(video, track), source, kind, sha256)
    except MediaError as error:
        if error.reason is not Reason.NO_VIDEO:
            raise
    return MediaFacts(
        kind="video",
        container=kind.format,
        codec="",
        pixel_format="",
        width=0,
        height=0,
        rotation=0,
        fps=None,
        variable_fps=False,
        num_frames=0,
        duration_s=0.0,
        start_time_s=0.0,
        decodable_share=0.0,
        first_bad_s=None,
        still=False,
        black=False,
        one_frame=False,
        audio_only=True,
        bytes=source.bytes,
        sha256=sha256,
        phash="",
    )


@contextmanager
def _open_strict(source: Source, kind: Kind, limits: Limits) -> Iterator[Video]:
    """Opens a video so that a damaged frame is an error; decoding for use conceals what it can."""
    with open_video(source, kind, limits) as video:
        video.stream.codec_context.options = {**video.stream.codec_context.options, "err_detect": "explode"}
        yield video


@dataclass
class _Track:
    """The packets of the picture track, without their content."""

    pts: list[int]  # in decoding order; invented from the count where the container gives none
    keys: list[int]  # ordinals of key packets
    shown: list[int]  # time stamps of the frames to be shown, in order of display
    hidden: set[int]  # ordinals of packets whose frames are never shown
    timed: bool  # whether the time stamps are the container's own
    lost_share: float  # of what the header claims, what the packets do not cover


@dataclass
class _Seen:
    """What came out of the decoder."""

    tried: int  # frames that should have come out
    good: int
    first_bad: int | None  # time stamp of the first that did not
    count: int
    look: "_Look"
    middle: U8  # thumbnail of the frame nearest to the middle of the track
    first: Any  # a frame, for size and orientation


class _Look:
    """What thumbnails have in common, seen one by one."""

    def __init__(self) -> None:
        self.count, self.brightest = 0, 0.0
        self.low, self.high = np.full((THUMB, THUMB), 255, np.uint8), np.zeros((THUMB, THUMB), np.uint8)

    def add(self, thumb: U8) -> None:
        self.count += 1
        self.low, self.high = np.minimum(self.low, thumb), np.maximum(self.high, thumb)
        self.brightest = max(self.brightest, float(np.percentile(thumb, 99)))

    @property
    def still(self) -> bool:
        return self.count > 1 and int((self.high - self.low).max()) < _STILL_LEVEL

    @property
    def black(self) -> bool:
        return self.count > 0 and self.brightest <= _BLACK_LEVEL


def _read_track(video: Video) -> _Track:
    pts: list[int] = []
    keys: list[int] = []
    hidden: set[int] = set()
    timed = video.has_times
    for packet in video.packets():
        timed = timed and packet.pts is not None
        if packet.is_keyframe:
            keys.append(len(pts))
        if is_hidden(packet):
            hidden.add(len(pts))
        pts.append(packet.pts if packet.pts is not None else -1)
    if not timed:
        pts = [video.start_pts + ordinal * video.ticks_per_frame for ordinal in range(len(pts))]
    shown = sorted({stamp for ordinal, stamp in enumerate(pts) if ordinal not in hidden})
    if not shown:
        raise MediaError(Reason.NO_FRAMES, f"{video.source.url}: its picture track has no frames")
    return _Track(pts, keys or [0], shown, hidden, timed, _lost_share(video, shown, len(pts)))


def _lost_share(video: Video, shown: Sequence[int], packets: int) -> float:
    """Which share of what the header claims is not covered by the packets that can be read."""
    indexed = len(video.stream.index_entries)
    if "mp4" in video.container.format.name or "avi" in video.container.format.name:
        return max(0.0, 1 - packets / indexed) if indexed else 0.0
    alone = len(video.container.streams) == 1  # else the container's duration may be that of the sound
    claimed = claimed_duration_s(video.container, video.stream) if alone or video.stream.duration else None
    covered = video.seconds(shown[-1]) - video.seconds(shown[0]) + _frame_s(video, shown)
    if claimed is None or claimed - covered < max(_LOST_SLACK_S, 0.02 * claimed):
        return 0.0
    return 1 - covered / claimed


def _frame_s(video: Video, shown: Sequence[int]) -> float:
    """Duration of one frame in seconds: the median distance, or what the header says where there is one frame."""
    if len(shown) > 1:
        return float(np.median(np.diff(shown))) * float(video.stream.time_base)
    return video.frame_s


def _decode_sample(video: Video, track: _Track) -> _Seen:
    """Decodes a few frames of several groups of pictures, and the group of the middle frame up to that frame."""
    middle = track.shown[len(track.shown) // 2]
    last = track.pts.index(middle)
    chosen = {track.keys[i] for i in np.linspace(0, len(track.keys) - 1, _SAMPLED_KEYS).astype(int)}
    runs = {key: min(key + _SAMPLED_RUN, _group_end(track, key)) for key in chosen}
    key = track.keys[max(0, bisect_right(track.keys, last) - 1)]
    runs[key] = max(runs.get(key, 0), last + 1)
    seen = _Decoding(video, track, middle)
    end = -1
    for ordinal, packet in enumerate(video.packets()):
        if ordinal in runs:
            end = runs[ordinal]
            seen.expect(ordinal, end)
        if ordinal < end:
            seen.take(video.decode(packet))
        if ordinal == end - 1:
            seen.take(video.decode(None))
            video.flush()
    return seen.result()


def _group_end(track: _Track, key: int) -> int:
    following = bisect_right(track.keys, key)
    return track.keys[following] if following < len(track.keys) else len(track.pts)


def _decode_all(video: Video, track: _Track) -> _Seen:
    seen = _Decoding(video, track, track.shown[len(track.shown) // 2])
    seen.expect(0, len(track.pts))
    for frame in video.frames():
        seen.take([frame])
    return seen.result()


class _Decoding:
    """Collects decoded frames and compares them with those that were expected."""

    def __init__(self, video: Video, track: _Track, middle: int) -> None:
        self.video, self.track, self.middle = video, track, middle
        self.expected: set[int] = set()
        self.decoded: set[int] = set()
        self.count, self.look, self.first = 0, _Look(), None
        self.nearest: tuple[float, U8] | None = None  # distance from the middle, thumbnail

    def expect(self, start: int, end: int) -> None:
        """Frames of the packets [start, end) are to come. Those shown before their key frame need the group before."""
        for ordinal in range(start, end):
            stamp = self.track.pts[ordinal]
            if ordinal not in self.track.hidden and stamp >= self.track.pts[start]:
                self.expected.add(stamp)

    def take(self, frames: Sequence[Any]) -> None:
        for frame in frames:
            timed = self.track.timed and frame.pts is not None
            stamp = frame.pts if timed else self.track.pts[min(self.count, len(self.track.pts) - 1)]
            self.count += 1
            self.decoded.add(stamp)
            thumb = self.video.thumbnail(frame, THUMB)
            self.look.add(thumb)
            if self.nearest is None or abs(stamp - self.middle) < self.nearest[0]:
                self.nearest = abs(stamp - self.middle), thumb
            self.first = self.first or frame

    def result(self) -> _Seen:
        if self.nearest is None:
            raise MediaError(Reason.NO_FRAMES, f"{self.video.source.url}: not one frame decodes")
        good, bad = self.expected & self.decoded, self.expected - self.decoded
        if not self.track.timed:
            good, bad = (self.expected, set()) if self.count >= len(self.expected) else (self.decoded, bad)
        return _Seen(
            tried=len(self.expected),
            good=len(good),
            first_bad=min(bad, default=None),
            count=self.count,
            look=self.look,
            middle=self.nearest[1],
            first=self.first,
        )


def _video_facts(video: Video, track: _Track, seen: _Seen, source: Source, kind: Kind, sha256: str) -> MediaFacts:
    frame_s = _frame_s(video, track.shown)
    span_s = video.seconds(track.shown[-1]) - video.seconds(track.shown[0])
    count = len(track.shown)
    lost_s = span_s + frame_s if track.lost_share > 0 else None
    matrix = orientation(seen.first)
    width, height = seen.first.width, seen.first.height
    if matrix[0, 0] == 0:
        width, height = height, width
    return MediaFacts(
        kind="video",
        container=kind.format,
        codec=video.stream.codec_context.codec.canonical_name,
        pixel_format=seen.first.format.name,
        width=width,
        height=height,
        rotation=round(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))) % 360,
        fps=(count - 1) / span_s if count > 1 and span_s > 0 else None,
        variable_fps=_is_variable(track),
        num_frames=count,
        duration_s=span_s + frame_s,
        start_time_s=float(track.shown[0] * video.stream.time_base),
        decodable_share=min(1.0, seen.good / max(1, seen.tried)) * (1 - track.lost_share),
        first_bad_s=video.seconds(seen.first_bad) if seen.first_bad is not None else lost_s,
        still=seen.look.still,
        black=seen.look.black,
        one_frame=count == 1,
        audio_only=False,
        bytes=source.bytes,
        sha256=sha256,
        phash=perceptual_hash(seen.middle),
    )


def _is_variable(track: _Track) -> bool:
    """More than 2 % of the distances between frames differ by over 10 % from the median (and over rounding)."""
    gaps = np.diff(track.shown)
    if not track.timed or len(gaps) < 2:
        return False
    median = float(np.median(gaps))
    return bool(np.mean(np.abs(gaps - median) > max(1.5, 0.1 * median)) > 0.02)
