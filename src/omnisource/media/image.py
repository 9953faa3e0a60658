"""Still and animated images, decoded by Pillow under a pixel limit."""

import time
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from omnisource.media.limits import DEFAULT_LIMITS, Limits, MediaError, Reason
from omnisource.media.sniff import sniff_source
from omnisource.media.source import Source, open_source

# Content families that Pillow may try; a plug-in that is not needed is one that can't be attacked.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
_DEFAULT_FRAME_MS = 100  # what browsers use when an animation gives no duration
_MAX_ANIMATION_FRAMES = 20_000

U8 = npt.NDArray[np.uint8]


def scaled_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """(width, height) with the shorter side made `short_side`, up or down; unchanged for None."""
    if short_side is None:
        return width, height
    if width <= height:
        return short_side, max(1, round(height * short_side / width))
    return max(1, round(width * short_side / height)), short_side


def decode_image(path: str | Path, limits: Limits = DEFAULT_LIMITS, short_side: int | None = None) -> U8:
    """Decodes an image to uint8 (H, W, 3) RGB, upright (EXIF orientation applied).

    `short_side`: the shorter side in pixels after resizing (antialiased); None keeps the size. Transparency
    is laid on black. An animated image gives its first frame. Raises MediaError.
    """
    source = open_source(path, limits.max_bytes)
    with open_image(source, limits) as image:
        return to_array(image, short_side, limits)


def decode_animation(
    source: Source,
    indices: Sequence[int],
    start_s: float,
    end_s: float | None,
    short_side: int | None,
    limits: Limits,
) -> U8:
    """Frames of an animated image as uint8 (T, H, W, 3), by the rules of `decode_frames`. A still has one."""
    with open_image(source, limits) as image:
        width, height = scaled_size(*image.size, short_side)
        limits.check_memory(len(indices), width, height)
        times, end = frame_times(image, limits)
        inside = [i for i, t in enumerate(times) if t >= start_s and (end_s is None or t < end_s)]
        if not inside and 0 <= start_s < end:
            inside = [bisect_right(times, start_s) - 1]  # none begins in the range, but one is on the screen
        if not inside:
            raise MediaError(Reason.NO_FRAMES, f"{source.url} has no frame in the asked range")
        positions = [inside[min(index, len(inside) - 1)] for index in indices]
        frames: dict[int, U8] = {}
        for position in sorted(set(positions)):
            image.seek(position)
            frames[position] = to_array(image, short_side, limits)
    return np.stack([frames[position] for position in positions])


def frame_times(image: Image.Image, limits: Limits) -> tuple[list[float], float]:
    """Start of each frame of an opened image, and the end of the last, in seconds; ([0.0], 0.0) for a still."""
    deadline = time.monotonic() + limits.timeout_s
    count = int(getattr(image, "n_frames", 1)) if image.format in ("GIF", "WEBP", "PNG", "AVIF") else 1
    if count > _MAX_ANIMATION_FRAMES:
        raise MediaError(Reason.TOO_LONG, f"an animation of {count} frames, limit {_MAX_ANIMATION_FRAMES}")
    times, now = [], 0.0
    for index in range(count):
        times.append(now)
        if count > 1:
            image.seek(index)
            if image.format in ("WEBP", "AVIF"):
                image.load()  # their durations come with the pixels
            if time.monotonic() > deadline:
                raise MediaError(Reason.TIMEOUT, f"an animation of {count} frames takes too long to read")
            now += (float(image.info.get("duration") or 0.0) or _DEFAULT_FRAME_MS) / 1000
    image.seek(0)
    return times, now


def to_array(image: Image.Image, short_side: int | None, limits: Limits) -> U8:
    """The current frame of an opened image, upright, RGB, resized."""
    if short_side is not None and image.format == "JPEG":
        # The JPEG decoder can halve the size on its way for free; ask for twice what is needed.
        image.draft("RGB", scaled_size(*image.size, 2 * short_side))
    # Pillow copies where there is nothing to do: half of a decode's time.
    upright = ImageOps.exif_transpose(image) if image.getexif().get(ExifTags.Base.Orientation, 1) != 1 else image
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        upright = Image.new("RGB", layer.size)
        upright.paste(layer, mask=layer.getchannel("A"))
    elif upright.mode.startswith("I;16") or upright.mode == "I":
        # 16-bit grey: keep the high byte; convert() would clip to white.
        upright = Image.fromarray((np.asarray(upright).astype(np.uint32) >> 8).astype(np.uint8))
    rgb = upright if upright.mode == "RGB" else upright.convert("RGB")
    size = scaled_size(*rgb.size, short_side)
    if size != rgb.size:
        limits.check_pixels(*size)
        rgb = rgb.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(rgb)


@contextmanager
def open_image(source: Source, limits: Limits) -> Iterator[Image.Image]:
    """An opened image within the pixel limit, not yet decoded. Pillow's errors become MediaError."""
    kind = sniff_source(source)
    if kind.family != "image":
        reason = Reason.WRONG_KIND if kind.is_media else Reason.NOT_MEDIA
        raise MediaError(reason, f"{source.url} is {kind.format}, not an image")
    with source.open() as file, image_errors(source.url), Image.open(file, formats=_FORMATS) as image:
        limits.check_pixels(*image.size)
        yield image


@contextmanager
def image_errors(url: str) -> Iterator[None]:
    """Turns what Pillow raises for bad images into MediaError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of big or odd images; our own limits decide
            yield
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError(Reason.CORRUPT, f"{url}: no image can be read from it") from error
    except Image.DecompressionBombError as error:
        raise MediaError(Reason.TOO_MANY_PIXELS, f"{url}: {error}") from error
    except MemoryError as error:
        raise MediaError(Reason.MEMORY, f"{url}: not enough memory to decode it") from error
    except Exception as error:  # Pillow's parsers raise many kinds (struct.error, SyntaxError, KeyError, ...)
        reason = Reason.TRUNCATED if "truncated" in str(error).lower() else Reason.CORRUPT
        raise MediaError(reason, f"{url}: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """One line about an exception of a library."""
    text: Any = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
