"""What a teacher looks at: the units of a sample, and the views of the file that show them (paper, section 3.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from omnisource.clips import dense_test, frame_times, segment_test, stride_in, windows
from omnisource.curate.samples import Sample, frame_at, frames_between
from omnisource.infer import Request
from omnisource.recipe import Score
from omnisource.recipe.curation import Unit

_BLOCK_S = 300.0  # of an untrimmed video that one request covers at most,
_BLOCK_PIXELS = 2e9  # and the pixels that lie in it, so that it decodes well within a time limit


@dataclass(frozen=True)
class Look:
    """How one teacher looks: from its checkpoint and the recipe."""

    spatial: bool
    frames: int
    stride: int
    fps: float | None = None  # at which the stride counts; None: each file's own frames


@dataclass(frozen=True)
class Span:
    """One unit of a sample. Times are in seconds from the file's first frame; None: the whole file."""

    unit: Unit
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, eq=False)
class Piece:
    """What a request of ours shows: so many clips of each span, one span after another."""

    sample: Sample
    spans: tuple[Span, ...]
    last: bool = False
    """No other piece of this sample follows."""


def pieces(sample: Sample, units: Sequence[Unit], look: Look, score: Score) -> Iterator[Request]:
    """The requests, with a Piece as key, that show a teacher the units of `sample` that are among `units`.

    An image: one view. A clip or a window: `score.views` clips for a 3D network, `score.segments` snippets for a 2D
    one. A frame: itself. A long video is cut into blocks, so that no request is long; each block is decoded once.
    """
    requests = [request for unit in units for request in _of_unit(sample, unit, look, score)]
    for number, request in enumerate(requests, 1):
        piece = Piece(sample, request.key, last=number == len(requests))  # type: ignore[arg-type]
        yield replace(request, key=piece, bytes=sample.bytes)


def _of_unit(sample: Sample, unit: Unit, look: Look, score: Score) -> Iterator[Request]:
    """Requests whose key is the tuple of spans."""
    still = np.zeros((1, 1), np.int64)
    length = None if look.spatial else look.frames
    if unit == "image" and sample.format == "image":
        yield Request((Span("image"),), sample.uri, still, length=length)
    elif unit == "clip" and sample.format == "clip":
        span = Span("clip", sample.start_s, sample.end_s)
        clips = _clips(sample, sample.start_s or 0.0, sample.end_s, look, score)
        yield Request((span,), sample.uri, clips, start_s=sample.start_s or 0.0, end_s=sample.end_s)
    elif unit == "window" and sample.format == "untrimmed":
        for block in _blocks(sample, _windows(sample, score)):
            yield _block_request(sample, block, look, score)
    elif unit == "frame" and sample.format == "untrimmed":
        for block in _blocks(sample, _frames(sample, score)):
            base = block[0].start_s or 0.0
            indices = [frame_at(sample, span.start_s or 0.0) - frame_at(sample, base) for span in block]
            yield Request(tuple(block), sample.uri, np.array(indices)[:, None], start_s=base, length=length)


def _block_request(sample: Sample, block: Sequence[Span], look: Look, score: Score) -> Request:
    base = block[0].start_s or 0.0
    clips = [
        _clips(sample, span.start_s or 0.0, span.end_s, look, score)
        + (frame_at(sample, span.start_s or 0.0) - frame_at(sample, base))
        for span in block
    ]
    end_s = block[0].end_s if len(block) == 1 else None
    return Request(tuple(block), sample.uri, np.concatenate(clips), start_s=base, end_s=end_s)


def _windows(sample: Sample, score: Score) -> list[Span]:
    start, end = _extent(sample)
    return [Span("window", start + a, start + b) for a, b in windows(end - start, score.window_s, score.hop_s)]


def _frames(sample: Sample, score: Score) -> list[Span]:
    start, end = _extent(sample)
    return [Span("frame", start + time) for time in frame_times(end - start, score.frames_per_second)]


def _extent(sample: Sample) -> tuple[float, float]:
    """Beginning and end of the sample in its file; at least a frame long."""
    rate = sample.fps or 25.0
    whole = sample.duration_s or (sample.num_frames or 1) / rate
    start = min(sample.start_s or 0.0, max(whole - 1 / rate, 0.0))
    return start, max(min(sample.end_s or whole, whole), start + 1 / rate)


def _blocks(sample: Sample, spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Runs of spans that one request may cover."""
    seconds = min(_BLOCK_S, _BLOCK_PIXELS / max(1.0, sample.width * sample.height * (sample.fps or 25.0)))
    if sample.variable_fps:
        seconds = 0.0  # where frames are not evenly spaced only a seek finds the one at a given time
    block: list[Span] = []
    for span in spans:
        if block and (span.end_s or span.start_s or 0.0) - (block[0].start_s or 0.0) > seconds:
            yield block
            block = []
        block.append(span)
    if block:
        yield block


def _clips(sample: Sample, start_s: float, end_s: float | None, look: Look, score: Score) -> npt.NDArray[np.int64]:
    """(clips, T) indices into a piece of a sample."""
    count = frames_between(sample, start_s, end_s)
    if look.spatial:
        return segment_test(count, score.segments)[None]
    return dense_test(count, look.frames, stride_in(sample.fps, look.stride, look.fps), score.views)
