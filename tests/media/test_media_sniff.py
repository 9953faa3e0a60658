"""Content decides, not the name."""

import pytest
from odd_media import make_sound, make_video
from PIL import Image

from omnisource.media import MediaError, Reason, sniff, sniff_bytes


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("a.mp4", "libx264", ("video", "mp4")),
        ("a.mov", "libx264", ("video", "mov")),
        ("a.mkv", "libx264", ("video", "matroska")),
        ("a.webm", "libvpx", ("video", "matroska")),
        ("a.avi", "mpeg4", ("video", "avi")),
        ("a.flv", "flv", ("video", "flv")),
        ("a.wmv", "wmv2", ("video", "asf")),
        ("a.ts", "libx264", ("video", "mpegts")),
        ("a.mpg", "mpeg2video", ("video", "mpeg")),
    ],
)
def test_videos(tmp_path, name, codec, expected):
    path = make_video(tmp_path / name, 3, codec=codec).rename(tmp_path / "wrong.txt")
    kind = sniff(path)
    assert (kind.family, kind.format) == expected and kind.is_media


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_images(tmp_path, form):
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.mp4", format=form)
    kind = sniff(tmp_path / "picture.mp4")
    assert (kind.family, kind.format) == ("image", form.lower())
    assert kind.suffix


def test_sound(tmp_path):
    for name, expected in (("a.m4a", ("audio", "m4a")), ("a.aac", ("audio", "aac"))):
        kind = sniff(make_sound(tmp_path / name))
        assert (kind.family, kind.format) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", "empty"),
        (b"  \r\n<!DOCTYPE html><html>", "html"),
        (b"\xef\xbb\xbf<html lang=en>", "html"),
        (b'<?xml version="1.0"?><svg>', "html"),
        (b'{"error": "not found"}', "json"),
        (b"#EXTM3U\n/etc/passwd", "playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd", "text"),
        (b"404 page not found\n", "text"),
        (b"PK\x03\x04....", "zip"),
        (bytes(range(128, 256)) * 16, "unknown"),
        (b"RIFF....JUNK", "unknown"),
    ],
)
def test_what_is_not_media(head, expected):
    kind = sniff_bytes(head)
    assert kind.format == expected and not kind.is_media and kind.suffix == ""


def test_missing(tmp_path):
    with pytest.raises(MediaError) as caught:
        sniff(tmp_path / "none")
    assert caught.value.reason is Reason.MISSING
