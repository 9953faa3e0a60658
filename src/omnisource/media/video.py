"""Frames of a video: only those asked for, upright, resized on the way.

How `decode_frames` finds its frames: it seeks to a key frame before `start_s`, reads packets (compressed,
cheap) until their time stamps cover the asked indices, then decodes only from the nearest key frame before
each asked frame. When all asked frames are key frames, as in prepared media, nothing else is decoded.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from omnisource.media.container import Video, is_hidden, open_video, upright
from omnisource.media.image import decode_animation, frame_times, open_image, scaled_size, to_array
from omnisource.media.limits import DEFAULT_LIMITS, Limits, MediaError, Reason
from omnisource.media.sniff import Kind, sniff_source
from omnisource.media.source import Source, open_source

U8 = npt.NDArray[np.uint8]

_HELD_BYTES = 64 * 1024**2  # packets kept in memory between the two passes; beyond, the file is read again
_SLACK_S = 1e-6  # rounding of times
_BACK_OFF_S = (0.0, 2.0, 10.0)  # further and further back when a seek lands behind its goal


def decode_frames(
    path: str | Path,
    indices: Sequence[int],
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    short_side: int | None = None,
    keys_only: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> U8:
    """Decodes the frames `indices` of a video to uint8 (T, H, W, 3), RGB, upright, in the order asked for.

    Index 0 is the first frame at or after `start_s` (seconds since the first frame of the picture track); frames at or
    after `end_s` do not count; where none begins in the range, the one on the screen counts. Indices may repeat and
    come in any order; one past the last frame gives the last frame. Negative ones raise ValueError. `short_side`: the
    shorter side after resizing, None keeps the size. An animated image counts as a video, a still image as a video of
    one frame.

    `keys_only` takes, instead of each asked frame, the last key frame at or before it (the first frame of the range
    where there is none): in prepared media at most one group of pictures away, and many times faster. Of several asked
    frames with one key frame the first takes it and the others stay themselves: different frames stay different.

    A frame that does not decode is replaced by the nearest that does, but when more than half of the asked
    frames do not decode the file raises MediaError. So does everything else that is wrong with it.
    """
    wanted = [int(index) for index in indices]
    if not wanted or min(wanted) < 0:
        raise ValueError(f"frame indices must be a non-empty list of numbers >= 0, got {wanted[:5]}")
    source = open_source(path, limits.max_bytes)
    kind = sniff_source(source)
    if kind.family == "image":
        return decode_animation(source, wanted, start_s, end_s, short_side, limits)
    with open_video(source, kind, limits) as video:
        context = video.stream.codec_context
        limits.check_memory(len(wanted), *scaled_size(context.width or 1, context.height or 1, short_side))
        span = _scan(video, start_s, end_s, max(wanted) + 1)
        if span is None:
            return _decode_by_counting(source, kind, wanted, start_s, end_s, short_side, limits)
        targets = [span.display[min(index, len(span.display) - 1)] for index in wanted]
        if keys_only:
            targets = _key_frames(span, targets)
        frames = _decode_exact(video, span, sorted(set(targets)), short_side)
        if len(frames) < len(set(targets)):
            frames = _decode_nearest(video, span, sorted(set(targets)), short_side)
        pictures = np.stack([frames[target] for target in targets])
        return upright(pictures, video.orientation)


def iter_frames(
    path: str | Path,
    *,
    every_s: float | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    short_side: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[tuple[float, U8]]:
    """Decodes a whole video (or animated image) once, in order, yielding (seconds, uint8 (H, W, 3) upright).

    `every_s`: only the first frame at or after each of start_s, start_s + every_s, ...; None yields all. The
    time limit counts from one frame to the next. Raises MediaError, also when no frame decodes.
    """
    source = open_source(path, limits.max_bytes)
    kind = sniff_source(source)
    if kind.family == "image":
        timed = _animation(source, short_side, limits)
    else:
        timed = _whole_video(source, kind, start_s, short_side, limits)
    due, count = start_s, 0
    for seconds, render in timed:
        if end_s is not None and seconds >= end_s:
            break
        if seconds < due - _SLACK_S:
            continue
        yield seconds, render()
        count += 1
        if every_s is not None:
            due = start_s + every_s * (math.floor((seconds - start_s) / every_s + _SLACK_S) + 1)
    if count == 0:
        raise MediaError(Reason.NO_FRAMES, f"{source.url} has no frame in the asked range")


@dataclass
class _Span:
    """Packets from a key frame on, in decoding order, that hold the asked frames."""

    from_s: float | None  # where to seek to read them again; None: the beginning
    packets: list[Any] | None  # None when they are too many to hold
    pts: list[int]
    keys: list[int]  # ordinals of key packets
    ordinal: dict[int, int]  # time stamp of a shown frame -> ordinal of its packet
    display: list[int]  # time stamps of the frames in the asked range, in order of display


def _starts(video: Video, start_s: float) -> list[float | None]:
    """Where to seek for frames from `start_s` on: further and further back, at last the beginning (None)."""
    if not (video.seekable and video.has_times):
        return [None]
    return [*(start_s - back for back in _BACK_OFF_S if start_s - back > 0), None]


def _scan(video: Video, start_s: float, end_s: float | None, need: int) -> _Span | None:
    """Reads packets from a key frame before `start_s` until they cover the first `need` frames after it.

    None when the container gives no time stamps.
    """
    if not video.has_times:
        return None
    span = None
    for from_s in _starts(video, start_s):
        video.seek(from_s)
        span = _read_span(video, from_s, start_s, end_s, need)
        if span is None or (span.pts and span.pts[0] <= video.pts_at(start_s)):
            break
    if span is not None and not span.display:
        raise MediaError(Reason.NO_FRAMES, f"{video.source.url} has no frame in the asked range")
    return span


def _from_key(video: Video) -> Iterator[Any]:
    """Packets from the first key packet on; a decoder can't use those before it."""
    started = False
    for packet in video.packets():
        started = started or packet.is_keyframe
        if started:
            yield packet


def _read_span(video: Video, from_s: float | None, start_s: float, end_s: float | None, need: int) -> _Span | None:
    first = video.pts_at(start_s) if start_s > 0 else None
    beyond = video.pts_at(end_s) if end_s is not None else None
    span = _Span(from_s, [], [], [], {}, [])
    held, last_needed, before = 0, None, None
    for packet in _from_key(video):
        pts = packet.pts
        if pts is None:
            return None
        ordinal = len(span.pts)
        span.pts.append(pts)
        if packet.is_keyframe:
            span.keys.append(ordinal)
        held += packet.size
        if span.packets is not None:
            span.packets.append(packet)
        if held > _HELD_BYTES:
            span.packets = None
        if not is_hidden(packet) and (first is None or pts >= first) and (beyond is None or pts < beyond):
            span.ordinal.setdefault(pts, ordinal)
            span.display.append(pts)
            if len(span.display) == need:
                last_needed = max(span.display)
        elif not is_hidden(packet) and first is not None and pts < first and (before is None or pts > before[0]):
            before = pts, ordinal, packet.duration or video.ticks_per_frame
        # Packets come in decoding order: once that has passed a time, no frame before it can follow.
        if packet.dts is not None and (
            (last_needed is not None and packet.dts > last_needed) or (beyond is not None and packet.dts >= beyond)
        ):
            break
    span.display = sorted(set(span.display))
    if (
        not span.display
        and before is not None
        and first is not None
        and before[0] + before[2] > video.exact_pts(start_s)
    ):
        # No frame begins in the range, but one is on the screen.
        span.ordinal[before[0]] = before[1]
        span.display.append(before[0])
    return span


def _replay(video: Video, span: _Span) -> Iterator[Any]:
    """The packets of a span, from memory or by reading them again."""
    if span.packets is not None:
        yield from span.packets
        return
    video.seek(span.from_s)
    for _, packet in zip(span.pts, _from_key(video), strict=False):
        yield packet


def _key_frames(span: _Span, targets: Sequence[int]) -> list[int]:
    """For each target the last key frame of the range at or before it, else the first frame of the range.

    A target whose key frame an earlier one has taken stays itself.
    """
    keys = sorted(span.pts[ordinal] for ordinal in span.keys if span.ordinal.get(span.pts[ordinal]) == ordinal)
    moved: dict[int, int] = {}
    taken: set[int] = set()
    for target in sorted(set(targets)):
        place = bisect_right(keys, target) - 1
        key = keys[place] if place >= 0 else span.display[0]
        moved[target] = target if key in taken else key
        taken.add(key)
    return [moved[target] for target in targets]


def _ranges(span: _Span, targets: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges [from, to] of packet ordinals, each beginning at a key packet, that decode `targets`."""
    ranges: list[tuple[int, int]] = []
    for last in sorted(span.ordinal[target] for target in targets):
        key = bisect_right(span.keys, last) - 1
        if span.pts[last] < span.pts[span.keys[key]] and key > 0:
            key -= 1  # shown before its key frame: it also needs the group before (an open group of pictures)
        first = span.keys[key]
        if ranges and first <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    return ranges


def _decode_exact(video: Video, span: _Span, targets: Sequence[int], short_side: int | None) -> dict[int, U8]:
    """The targets whose own frames decode, by time stamp."""
    wanted, found = set(targets), dict[int, U8]()
    places, context = {span.ordinal[target] for target in targets}, video.stream.codec_context
    # In H.264 a picture says whether others are predicted from it. Decoding those that nobody asked for and nobody
    # needs would be a quarter of the time. Other codecs have no such mark that holds for all later pictures.
    unneeded = "NONREF" if context.name == "h264" else "DEFAULT"

    def keep(frames: list[Any]) -> None:
        for frame in frames:
            if frame.pts in wanted and frame.pts not in found:
                found[frame.pts] = video.to_rgb(frame, short_side)

    delayed = context.has_b_frames  # it holds frames back to put them in order
    ranges = iter(_ranges(span, targets))
    current = next(ranges, None)
    for ordinal, packet in enumerate(_replay(video, span)):
        if current is None:
            break
        if ordinal < current[0]:
            continue
        # The packet after a wanted one may hold the second half of an interlaced picture.
        context.skip_frame = "DEFAULT" if places & {ordinal, ordinal - 1} else unneeded
        keep(video.decode(packet))
        if ordinal == current[1]:
            if delayed:
                keep(video.decode(None))
                video.flush()
            current = next(ranges, None)
    keep(video.decode(None))
    context.skip_frame = "DEFAULT"
    return found


def _decode_nearest(video: Video, span: _Span, targets: Sequence[int], short_side: int | None) -> dict[int, U8]:
    """For each target its own frame or, when that does not decode, the last before it, else the first after.

    Raises MediaError when fewer than half of the targets decode themselves.
    """

    def converted(frame: Any) -> U8:
        return video.to_rgb(frame, short_side)

    found: dict[int, U8] = {}
    waiting, exact, before = deque(targets), 0, None
    video.flush()
    for frame in _span_frames(video, span):
        if frame.pts is None:
            continue
        while waiting and waiting[0] < frame.pts:
            found[waiting.popleft()] = converted(before or frame)
        if waiting and waiting[0] == frame.pts:
            found[waiting.popleft()] = converted(frame)
            exact += 1
        if not waiting:
            break
        before = frame
    if before is None and not found:
        raise MediaError(Reason.NO_FRAMES, f"{video.source.url}: not one frame in the asked range decodes")
    if 2 * exact < len(targets):
        raise MediaError(Reason.CORRUPT, f"{video.source.url}: only {exact} of {len(targets)} asked frames decode")
    return found | {target: converted(before) for target in waiting}


def _span_frames(video: Video, span: _Span) -> Iterator[Any]:
    for packet in _replay(video, span):
        yield from video.decode(packet)
    yield from video.decode(None)


def _decode_by_counting(
    source: Source,
    kind: Kind,
    wanted: Sequence[int],
    start_s: float,
    end_s: float | None,
    short_side: int | None,
    limits: Limits,
) -> U8:
    """`decode_frames` for containers without time stamps: decodes all from the beginning and counts."""
    needed, found, index, last, before = set(wanted), dict[int, U8](), -1, None, None
    with open_video(source, kind, limits) as video:
        for seconds, frame in _timed(video):
            if seconds < start_s - _SLACK_S:
                before = frame if seconds + video.frame_s > start_s else None
                continue
            if end_s is not None and seconds >= end_s:
                break
            index, last = index + 1, frame
            if index in needed:
                found[index] = video.to_rgb(frame, short_side)
            if index == max(wanted):
                break
        last = last or before
        if last is None:
            raise MediaError(Reason.NO_FRAMES, f"{source.url} has no frame in the asked range")
        final = found[index] if index in found else video.to_rgb(last, short_side)
    return upright(np.stack([found.get(i, final) for i in wanted]), video.orientation)


def _timed(video: Video) -> Iterator[tuple[float, Any]]:
    """(seconds, frame) from the beginning; where time stamps are missing they follow from the frame rate."""
    for count, frame in enumerate(video.frames()):
        yield (video.seconds(frame.pts) if video.has_times and frame.pts is not None else count * video.frame_s), frame


_Render = Callable[[], U8]


def _whole_video(
    source: Source, kind: Kind, start_s: float, short_side: int | None, limits: Limits
) -> Iterator[tuple[float, _Render]]:
    """(seconds, picture on demand) of every frame from a key frame before `start_s` on."""
    with open_video(source, kind, limits) as video:
        frames: Iterator[tuple[float, Any]] = iter(())
        for from_s in _starts(video, start_s):
            video.seek(from_s)
            frames = _timed(video)
            first = next(frames, None)
            if first is None:
                continue
            frames = chain([first], frames)
            if first[1].pts is not None and first[0] <= start_s:
                break
        for seconds, frame in frames:
            yield seconds, partial(_render, video, frame, short_side)
            video.restart_clock()


def _render(video: Video, frame: Any, short_side: int | None) -> U8:
    return upright(video.to_rgb(frame, short_side), video.orientation)


def _animation(source: Source, short_side: int | None, limits: Limits) -> Iterator[tuple[float, _Render]]:
    with open_image(source, limits) as image:
        starts, _ = frame_times(image, limits)
        for index, seconds in enumerate(starts):
            image.seek(index)
            yield seconds, partial(to_array, image, short_side, limits)
