"""Frames into files, and what the web does to files: copies, edits, damage."""

import shutil
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
from PIL import Image

from omnisource.demo.scenes import Picture

Edit = Literal["reencoded", "resized", "cropped", "mirrored", "captioned", "shortened"]
Damage = Literal["truncated", "html", "empty", "random"]

CAPTIONS = (
    "how to do it", "so much fun!", "day 12", "must see", "@miniworld", "part 2", "watch till the end",
    "my first try", "holiday 2019", "tutorial", "easy!", "best of",
)  # fmt: skip


# With x264's look-ahead the same frames gave now and then other bytes (PyAV 18, sides no multiples of 16).
_REPEATABLE = {"x264-params": "rc-lookahead=0:mbtree=0"}


def write_video(path: Path, frames: Iterable[Picture], fps: float, crf: int = 23) -> None:
    """Writes H.264 in MP4. The same frames give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = None
        rate = Fraction(fps).limit_denominator(1001)
        for index, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream("libx264", rate=rate)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": str(crf), "preset": "superfast", "g": "25", "threads": "1", **_REPEATABLE}
                stream.codec_context.flags |= av.codec.context.Flags.bitexact
            picture = av.VideoFrame.from_ndarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), format="yuv420p")
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        if stream is None:
            raise ValueError(f"{path}: no frames to write")
        container.mux(stream.encode())


def read_video(path: Path) -> tuple[list[Picture], float]:
    """All frames and the frame rate of a file that this module wrote."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, float(stream.average_rate or 0)


def write_image(path: Path, picture: Picture, quality: int = 88) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, "JPEG", quality=quality)


def captioned(frame: Picture, text: str, below: bool) -> Picture:
    """The frame with a line of text on a dark bar."""
    frame = frame.copy()
    height, width = frame.shape[:2]
    bar = max(height // 8, 12)
    top = height - bar if below else 0
    frame[top : top + bar] //= 3
    size = bar / 30
    (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    spot = (max((width - wide) // 2, 2), top + round(0.72 * bar))
    cv2.putText(frame, text, spot, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return frame


def boxed(frame: Picture, share: float) -> Picture:
    """The frame squeezed between dark bars above and below, `share` of the height each."""
    height, width = frame.shape[:2]
    bar = round(share * height)
    framed = np.full_like(frame, 8)
    framed[bar : height - bar] = cv2.resize(frame, (width, height - 2 * bar), interpolation=cv2.INTER_AREA)
    return framed


def edited(frames: list[Picture], edit: Edit, text: str) -> list[Picture]:
    """What somebody who uploads another's clip again does to it."""
    height, width = frames[0].shape[:2]
    if edit == "shortened":
        return frames[len(frames) // 8 : -(len(frames) // 8) or None]
    if edit == "mirrored":
        return [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]
    if edit == "captioned":
        return [captioned(frame, text, below=True) for frame in frames]
    if edit == "resized":
        size = (round(width * 0.7) // 2 * 2, round(height * 0.7) // 2 * 2)
        return [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    if edit == "cropped":
        dy, dx = round(0.07 * height), round(0.07 * width)
        cut = [frame[dy : height - dy, dx : width - dx] for frame in frames]
        return [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in cut]
    return frames


def damage(whole: Path, broken: Path, how: Damage, rng: np.random.Generator) -> None:
    """Writes to `broken` what a failed download of `whole` leaves."""
    broken.parent.mkdir(parents=True, exist_ok=True)
    content = whole.read_bytes()
    if how == "truncated":
        broken.write_bytes(content[: int(len(content) * rng.uniform(0.2, 0.6))])
    elif how == "html":
        page = "<!DOCTYPE html><html><head><title>404</title></head><body>This media is gone.</body></html>\n"
        broken.write_text(page)
    elif how == "empty":
        broken.write_bytes(b"")
    else:
        broken.write_bytes(rng.bytes(len(content)))


def copy(whole: Path, twin: Path) -> None:
    twin.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(whole, twin)
