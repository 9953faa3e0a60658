"""Making media small on arrival: short side as the recipe says, images as JPEG, videos as H.264 with a short GOP.

A loader then decodes far less (a GOP of 8 lets it take key frames only), and a million images fit on one disk.
The hash of the original is kept, so the same bytes are not loaded again.
"""

import io
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from omnisource.collect.download import hash_file
from omnisource.collect.state import CollectState
from omnisource.collect.store import Store, StoreFull
from omnisource.media import Failure, IsolatedPool, Limits, Reason, decode_image, iter_frames, scaled_size, sniff

_JPEG_QUALITY = 92
_GOP = 8
_CLOCK = Fraction(1, 90_000)
_TIMEOUT_S = 1800.0
_BATCH = 32
_IDLE_S = 0.2


@dataclass(frozen=True)
class Job:
    """One file to make small."""

    source: Path
    target: Path
    short_side: int


def shrink(job: Job) -> str | None:
    """Writes the small copy; returns its extension, or None where the original is small enough already.

    Videos are always written anew, for their GOP; they keep the time of every frame and lose the sound.
    """
    if sniff(job.source).family == "image":
        return _shrink_image(job)
    _shrink_video(job)
    return "mp4"


def _shrink_image(job: Job) -> str | None:
    pixels = decode_image(job.source)
    height, width = pixels.shape[:2]
    scale = job.short_side / min(height, width)
    if scale >= 1:
        return None
    small = Image.fromarray(pixels).resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()  # Pillow does not say why it can't write a file
    small.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    job.target.write_bytes(encoded.getbuffer())
    return "jpg"


def _shrink_video(job: Job) -> None:
    limits = Limits(timeout_s=_TIMEOUT_S)
    _, first = next(iter_frames(job.source, limits=limits))
    short_side = min(job.short_side, *first.shape[:2])
    width, height = (side // 2 * 2 for side in scaled_size(first.shape[1], first.shape[0], short_side))
    with av.open(str(job.target), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "20", "g": str(_GOP), "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _CLOCK
        latest = -1
        for seconds, pixels in iter_frames(job.source, short_side=short_side, limits=limits):
            even = np.ascontiguousarray(pixels[:height, :width])
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            latest = max(latest + 1, round(seconds / _CLOCK))
            frame.pts, frame.time_base = latest, _CLOCK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def shrink_fetched(state: CollectState, store: Store, short_side: int, downloading: threading.Event) -> str | None:
    """Makes files small as they come in, in processes that can be killed, until `downloading` is cleared.

    A file that cannot be decoded stays as it is: the probe says what is wrong with it.

    Returns:
        Why it stopped early, if the disk is full: what is left waits for the next run.
    """
    with IsolatedPool(timeout_s=_TIMEOUT_S) as pool:
        while True:
            more = downloading.is_set()
            jobs = [
                Job(store.root / path, store.scratch(f"{Path(path).stem}.small"), short_side)
                for path in state.fetched(_BATCH)
            ]
            try:
                for job, result in pool.map(shrink, jobs):
                    _settle(state, store, job, result)
            except StoreFull as full:
                return str(full)
            if not jobs:
                if not more:
                    return None
                threading.Event().wait(_IDLE_S)


def _settle(state: CollectState, store: Store, job: Job, result: str | Failure | None) -> None:
    original = job.source.stem
    if result is None or isinstance(result, Failure):
        job.target.unlink(missing_ok=True)
        if result is not None and result.reason is Reason.NO_SPACE:
            raise StoreFull(f"no space for small copies: {result.message}")
        relative, sha256 = str(job.source.relative_to(store.root)), original
        size = job.source.stat().st_size
    else:
        size = store.take_in(job.target)
        sha256 = hash_file(job.target).hexdigest()
        relative = str(store.adopt(job.target, sha256, result).relative_to(store.root))
    problem = "not_shrunk" if isinstance(result, Failure) else None
    state.settle(original, sha256=sha256, size=size, path=relative, problem=problem)
    if sha256 != original:
        store.remove(job.source)
