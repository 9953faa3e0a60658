"""What identifies a file (sha256) and a picture (64-bit perceptual hash)."""

import hashlib
import time

import numpy as np
import numpy.typing as npt

from omnisource.media.limits import MediaError, Reason
from omnisource.media.source import Source, reading_errors

THUMB = 32  # side of the grey thumbnails that `perceptual_hash` and the probe look at
_BITS = 8
_CHUNK = 1024 * 1024

# The first rows of the orthonormal DCT-II of length THUMB: the 8 lowest frequencies.
_DCT = np.sqrt(2 / THUMB) * np.cos(
    np.pi / THUMB * (np.arange(THUMB)[None, :] + 0.5) * np.arange(_BITS)[:, None], dtype=np.float64
)


def perceptual_hash(thumb: npt.NDArray[np.uint8]) -> str:
    """64 bits, as 16 hexadecimal digits, of a grey (32, 32) thumbnail: which low DCT frequencies are above the median.

    Pictures that look alike differ in few bits: resizing, re-encoding and mild colour changes move 0 to 6 of them.
    A flat picture has only rounding noise in its frequencies, so those below half a grey level count as zero.
    """
    frequencies = (_DCT @ thumb.astype(np.float64) @ _DCT.T).ravel()
    frequencies[np.abs(frequencies) < 0.5] = 0.0
    bits = frequencies > np.median(frequencies[1:])  # the mean brightness is left out
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"


def file_sha256(source: Source, deadline: float) -> str:
    """SHA-256 of the whole file in hexadecimal. MediaError after `deadline` (time.monotonic()) or when unreadable."""
    digest = hashlib.sha256()
    with source.open() as file, reading_errors(source.url):
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if time.monotonic() > deadline:
                raise MediaError(Reason.TIMEOUT, f"{source.url}: reading the file took too long")
    return digest.hexdigest()
