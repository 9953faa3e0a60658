"""A copy of a file with what the network says drawn on it: best classes, and a timeline below a long video."""

import colorsys
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from unicodedata import combining, normalize

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from omnisource.media import DEFAULT_LIMITS, Limits, decode_image, iter_frames, write_video
from omnisource.predict.recogniser import Guess, Prediction
from omnisource.tables import write_atomic

U8 = npt.NDArray[np.uint8]
_SHORT_SIDE = 480  # larger pictures are scaled down
_SHOWN = 3  # guesses
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# Beside Pillow's own, which has the letters of English alone; tried in this order where they are installed.
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial.ttf", "Arial Unicode.ttf")
_NO_CHARACTER = "\U0010ffff"
_LONGEST = 200  # bytes of a name, which grows by a mark, a suffix and, while it is written, another


@dataclass(frozen=True, eq=False)
class Annotation:
    """One file to draw on. The guesses of `prediction` go to `out`: .mp4 for a video, .jpg for an image."""

    prediction: Prediction
    out: Path
    limits: Limits = DEFAULT_LIMITS


def annotated_name(prediction: Prediction) -> str:
    """A file name for the annotated copy; the hash keeps files of the same name apart."""
    mark = hashlib.sha256(prediction.uri.encode(errors="surrogatepass")).hexdigest()[:6]
    stem = os.fsencode(Path(prediction.uri).stem)[:_LONGEST].decode(errors="ignore")
    return f"{stem}-{mark}" + (".jpg" if prediction.kind == "image" else ".mp4")


def annotate(task: Annotation) -> Path:
    """Writes the annotated copy (without sound); it appears whole or not at all. Runs in a worker.

    Raises:
        MediaError: the file does not decode.
    """
    if task.prediction.kind == "image":
        picture = Image.fromarray(draw(decode_image(task.prediction.uri, limits=task.limits), task.prediction.top))
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=90)
        write_atomic(task.out, encoded.getvalue())
    else:
        write_video(task.out, _drawn_frames(task), options={"crf": "23", "preset": "veryfast"})
    return task.out


def draw(frame: U8, guesses: tuple[Guess, ...], timeline: Image.Image | None = None, place: float = 0.0) -> U8:
    """A frame uint8 (H, W, 3) with the best guesses on it and, under it, a timeline with a mark at `place` (0 to 1)."""
    picture = Image.fromarray(frame)
    pen = ImageDraw.Draw(picture, "RGBA")
    size = max(11, min(picture.size) // 18)
    for row, guess in enumerate(guesses[:_SHOWN]):
        top = 4 + row * (size + 6)
        text, font = _written(guess.label, f"{guess.prob:.0%}", size, picture.width - 16)
        width = pen.textlength(text, font=font)
        pen.rectangle((4, top, 12 + width, top + size + 4), fill=(0, 0, 0, 150))
        pen.rectangle(
            (4, top + size + 2, 4 + (8 + width) * guess.prob, top + size + 4), fill=(*colour(guess.label), 255)
        )
        pen.text((8, top), text, font=font, fill=(255, 255, 255, 255))
    if timeline is not None:
        picture.paste(timeline, (0, picture.height - timeline.height))
        x = round(place * (picture.width - 1))
        pen.line((x, picture.height - timeline.height, x, picture.height), fill=(255, 255, 255, 255), width=2)
    return np.asarray(picture)


@lru_cache(1000)
def _written(label: str, share: str, size: int, width: int) -> tuple[str, _Font]:
    """A class and its share in one line of at most `width` pixels where that is possible, and a font that has it."""
    label = " ".join(label.split())  # several lines can't be measured
    own = ImageFont.load_default(size)
    font = next((font for font in chain([own], _installed(size)) if _has(font, label)), None)
    if font is None:  # without accents it may be readable
        font, label = own, "".join(c for c in normalize("NFKD", label) if not combining(c))
    text, kept = f"{label} {share}", len(label)
    while kept > 1 and font.getlength(text) > width:
        kept -= 1
        text = f"{label[:kept].rstrip()}... {share}"
    return text, font


def _installed(size: int) -> Iterator[_Font]:
    for name in _FONTS:
        try:
            yield ImageFont.truetype(name, size)
        except OSError:
            continue


def _has(font: _Font, text: str) -> bool:
    """Whether a font has a glyph for every character, other than the box that it draws for those it lacks."""
    box = bytes(font.getmask(_NO_CHARACTER))
    return not any(bytes(font.getmask(character)) == box for character in set(text) - {" "})


def colour(label: str) -> tuple[int, int, int]:
    """A colour that a class always has."""
    hue = int.from_bytes(hashlib.sha256(label.encode()).digest()[:2], "big") / 65536
    red, green, blue = colorsys.hls_to_rgb(hue, 0.55, 0.7)
    return round(255 * red), round(255 * green), round(255 * blue)


def _drawn_frames(task: Annotation) -> Iterator[tuple[float, U8]]:
    said = task.prediction
    whole_s = said.duration_s or 1.0
    timeline = None
    for seconds, frame in iter_frames(task.prediction.uri, limits=task.limits):
        frame = _fitted(frame)
        if timeline is None and said.windows:
            timeline = _timeline(said, frame.shape[1], max(6, frame.shape[0] // 40), whole_s)
        now = next((w.top for w in reversed(said.windows) if w.start_s <= seconds), said.top)
        yield seconds, draw(frame, now, timeline, min(seconds / whole_s, 1.0))


def _timeline(said: Prediction, width: int, height: int, whole_s: float) -> Image.Image:
    bar = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(bar)
    for window in said.windows:
        left, right = (round(at / whole_s * width) for at in (window.start_s, window.end_s))
        pen.rectangle((left, 0, right, height), fill=colour(window.top[0].label))
    return bar


def _fitted(frame: U8) -> U8:
    """Scaled down to the short side if larger; even sides, as the encoder asks."""
    height, width = frame.shape[:2]
    scale = min(1.0, _SHORT_SIDE / min(height, width))
    size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    return frame if size == (width, height) else np.asarray(Image.fromarray(frame).resize(size))
