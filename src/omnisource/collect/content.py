"""What a body is, by its first bytes: neither the name in a URL nor the stated type is to be believed."""

from typing import Literal

HEAD_BYTES = 512
Medium = Literal["image", "video"]

_IMAGE_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1"})


def sniff(head: bytes) -> tuple[Medium, str] | None:
    """(medium, file extension) of a body from its first `HEAD_BYTES` bytes, or None if it is neither image nor video."""
    for magic, extension in ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"BM", "bmp")):
        if head.startswith(magic) and (extension != "bmp" or head[6:10] == b"\0\0\0\0"):
            return "image", extension
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "image", "gif"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "image", "tif"
    if head[:4] == b"RIFF":
        return {b"WEBP": ("image", "webp"), b"AVI ": ("video", "avi")}.get(head[8:12])  # type: ignore[return-value]
    if head[4:8] == b"ftyp":
        if head[8:12] in _IMAGE_BRANDS:
            return "image", "avif" if head[8:11] == b"avi" else "heic"
        return "video", "mp4"
    for magic, extension in ((b"\x1aE\xdf\xa3", "mkv"), (b"FLV\x01", "flv"), (b"OggS", "ogv"), (b"\0\0\1\xba", "mpg")):
        if head.startswith(magic):
            return "video", extension
    if head[:4] == b"\x30\x26\xb2\x75":
        return "video", "wmv"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return "video", "mov"
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return "video", "ts"
    return None
