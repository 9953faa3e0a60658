"""What a file is, from its first bytes. Names and extensions are never trusted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omnisource.media.source import Source, open_source, reading_errors

HEAD_BYTES = 4096
Family = Literal["image", "video", "audio", "text", "other"]


@dataclass(frozen=True)
class Kind:
    """What the content of a file is.

    family: "image" (still or animated), "video" (may turn out to hold only sound), "audio", "text" (HTML,
    JSON, ...) or "other". format: short name such as "jpeg", "mp4", "html". suffix: the usual file extension
    with its dot, "" for families that are not media.
    """

    family: Family
    format: str
    suffix: str = ""

    @property
    def is_media(self) -> bool:
        return self.family in ("image", "video", "audio")


_JPEG = Kind("image", "jpeg", ".jpg")
_MP4 = Kind("video", "mp4", ".mp4")
_HEIF = Kind("image", "heif", ".heic")
_AVIF = Kind("image", "avif", ".avif")
_MP3 = Kind("audio", "mp3", ".mp3")
_OTHER = Kind("other", "unknown")

# (offset, bytes, kind): the first that matches wins.
_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\xff\xd8\xff", _JPEG),
    (0, b"\x89PNG\r\n\x1a\n", Kind("image", "png", ".png")),
    (0, b"GIF87a", Kind("image", "gif", ".gif")),
    (0, b"GIF89a", Kind("image", "gif", ".gif")),
    (0, b"BM", Kind("image", "bmp", ".bmp")),
    (0, b"II*\x00", Kind("image", "tiff", ".tif")),
    (0, b"MM\x00*", Kind("image", "tiff", ".tif")),
    (0, b"\x1aE\xdf\xa3", Kind("video", "matroska", ".mkv")),
    (0, b"FLV\x01", Kind("video", "flv", ".flv")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind("video", "asf", ".wmv")),
    (0, b"\x00\x00\x01\xba", Kind("video", "mpeg", ".mpg")),
    (0, b"\x00\x00\x01\xb3", Kind("video", "mpegvideo", ".mpg")),
    (0, b"OggS", Kind("video", "ogg", ".ogv")),
    (0, b"fLaC", Kind("audio", "flac", ".flac")),
    (0, b"ID3", _MP3),
    (0, b"%PDF", Kind("other", "pdf")),
    (0, b"PK\x03\x04", Kind("other", "zip")),
    (0, b"\x1f\x8b", Kind("other", "gzip")),
    (0, b"Rar!", Kind("other", "rar")),
    (0, b"7z\xbc\xaf", Kind("other", "7z")),
    (0, b"\x7fELF", Kind("other", "elf")),
)
_RIFF = {
    b"WEBP": Kind("image", "webp", ".webp"),
    b"AVI ": Kind("video", "avi", ".avi"),
    b"WAVE": Kind("audio", "wav", ".wav"),
}
_MP4_ATOMS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"styp", b"sidx")
_HTML = (b"<!doctype", b"<html", b"<head", b"<body", b"<script", b"<?xml", b"<svg", b"<!--")


def sniff_bytes(head: bytes) -> Kind:
    """The kind of a file that begins with `head` (HEAD_BYTES are enough)."""
    if not head:
        return Kind("other", "empty")
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset):
            return kind
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], _OTHER)
    if head[4:8] in _MP4_ATOMS:
        return _iso_media(head)
    if _is_transport_stream(head):
        return Kind("video", "mpegts", ".ts")
    if head[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        return _MP3
    if head[:2] in (b"\xff\xf1", b"\xff\xf9"):
        return Kind("audio", "aac", ".aac")
    return _text(head)


def sniff(path: str | Path) -> Kind:
    """The kind of the file at `path` (local or an fsspec URL) by content.

    MediaError when it can't be read.
    """
    return sniff_source(open_source(path))


def sniff_source(source: Source) -> Kind:
    with source.open() as file, reading_errors(source.url):
        return sniff_bytes(file.read(HEAD_BYTES))


def _iso_media(head: bytes) -> Kind:
    if head[4:8] != b"ftyp":
        return _MP4
    brand = head[8:12]
    if brand in (b"avif", b"avis"):
        return _AVIF
    if brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return _HEIF
    if brand in (b"M4A ", b"M4B "):
        return Kind("audio", "m4a", ".m4a")
    if brand == b"qt  ":
        return Kind("video", "mov", ".mov")
    return _MP4


def _is_transport_stream(head: bytes) -> bool:
    """MPEG-TS has 0x47 at every 188th byte (192nd as cameras write it), wherever the file was cut."""
    return any(
        len(head) > first + 8 * step and all(head[first + i * step] == 0x47 for i in range(8))
        for step in (188, 192)
        for first in range(step)
    )


def _text(head: bytes) -> Kind:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_HTML):
        return Kind("text", "html")
    if start[:1] in (b"{", b"["):
        return Kind("text", "json")
    if start.startswith(b"#extm3u"):
        return Kind("text", "playlist")
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return Kind("text", "text") if printable > 0.95 * len(head) else _OTHER
