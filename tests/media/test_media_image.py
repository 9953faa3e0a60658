"""Still images: orientation, modes, sizes, limits."""

import io
import struct
import zlib

import numpy as np
import pytest
from odd_media import numbered_frame, numbers
from PIL import Image

from omnisource.media import Limits, MediaError, Reason, decode_image, probe_media, scaled_size


@pytest.fixture
def picture():
    return Image.fromarray(numbered_frame(77, 160, 120))


def test_formats_decode_alike(tmp_path, picture):
    reference = np.asarray(picture).astype(int)
    for name in ("a.png", "a.bmp", "a.tif", "a.webp", "a.jpg", "a.gif"):
        options = {"lossless": True} if name == "a.webp" else {"quality": 98, "subsampling": 0} if "jpg" in name else {}
        picture.save(tmp_path / name, **options)
        image = decode_image(tmp_path / name)
        assert image.dtype == np.uint8 and image.shape == (120, 160, 3)
        assert np.abs(image - reference).mean() < (15 if name == "a.gif" else 3)
        facts = probe_media(tmp_path / name, thorough=True)
        assert (facts.kind, facts.width, facts.height, facts.num_frames, facts.decodable_share) == (
            "image",
            160,
            120,
            1,
            1.0,
        )
        assert facts.flags == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, picture, orientation):
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),  # stored turned against the clock, to be turned clockwise
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](np.asarray(picture))))
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(decode_image(tmp_path / "turned.png"), np.asarray(picture))
    facts = probe_media(tmp_path / "turned.png")
    assert (facts.width, facts.height) == (160, 120)
    assert facts.rotation == {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}.get(orientation, 0)


def test_every_mode_becomes_rgb(tmp_path, picture):
    for mode in ("1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "I;16"):
        name = tmp_path / (f"{mode}.tif" if mode in ("CMYK", "YCbCr") else f"{mode}.png".replace(";", ""))
        if mode == "I;16":
            grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
            Image.fromarray(grey).save(name)
        else:
            picture.convert(mode).save(name)
        assert decode_image(name).shape == (120, 160, 3)
        assert numbers(decode_image(name)[None]) == [77]


def test_transparency_is_laid_on_black(tmp_path, picture):
    picture.putalpha(Image.new("L", picture.size, 0))
    picture.save(tmp_path / "clear.png")
    assert not decode_image(tmp_path / "clear.png").any()


def test_short_side(tmp_path, picture):
    for name in ("a.jpg", "a.png"):
        picture.resize((1600, 1200)).save(tmp_path / name)
        for side, shape in ((60, (60, 80, 3)), (1300, (1300, 1733, 3))):
            assert decode_image(tmp_path / name, short_side=side).shape == shape
        assert numbers(decode_image(tmp_path / name, short_side=60)[None]) == [77]
    assert scaled_size(100, 300, 50) == (50, 150) and scaled_size(300, 100, None) == (300, 100)
    assert scaled_size(10000, 1, 1) == (10000, 1)


def test_a_truncated_image_is_not_passed_off_as_whole(tmp_path, picture):
    for name in ("a.jpg", "a.png", "a.gif"):
        picture.resize((640, 480)).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        for examine in (decode_image, probe_media):
            with pytest.raises(MediaError) as caught:
                examine(tmp_path / name)
            assert caught.value.reason in (Reason.TRUNCATED, Reason.CORRUPT)


def huge_png(width: int, height: int) -> bytes:
    """A valid 1-bit PNG of any size whose pixels compress to almost nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(huge_png(30_000, 30_000))
    assert bomb.stat().st_size < 200_000
    for examine in (decode_image, probe_media):
        with pytest.raises(MediaError) as caught:
            examine(bomb)
        assert caught.value.reason is Reason.TOO_MANY_PIXELS
    bomb.write_bytes(huge_png(300, 300))
    assert decode_image(bomb).shape == (300, 300, 3)
    with pytest.raises(MediaError):
        decode_image(bomb, Limits(max_pixels=300 * 299))


def test_the_result_of_enlarging_is_limited_too(tmp_path):
    Image.new("RGB", (5000, 2)).save(tmp_path / "thin.png")
    with pytest.raises(MediaError) as caught:
        decode_image(tmp_path / "thin.png", short_side=256)
    assert caught.value.reason is Reason.TOO_MANY_PIXELS


def test_what_is_not_an_image(tmp_path):
    for content, reason in (
        (b"", Reason.EMPTY),
        (b"<html></html>", Reason.NOT_MEDIA),
        (b"\xff\xd8\xff\xe0 and then nothing", Reason.TRUNCATED),
        (b"\x1aE\xdf\xa3 matroska", Reason.WRONG_KIND),
    ):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(MediaError) as caught:
            decode_image(tmp_path / "a.jpg")
        assert caught.value.reason is reason
    with pytest.raises(MediaError) as caught:
        decode_image(tmp_path / "none.jpg")
    assert caught.value.reason is Reason.MISSING


def test_image_from_an_fsspec_url(picture):
    import fsspec

    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    with fsspec.open("memory://bucket/a.png", "wb") as file:
        file.write(buffer.getvalue())
    assert np.array_equal(decode_image("memory://bucket/a.png"), np.asarray(picture))
    with pytest.raises(MediaError) as caught:
        decode_image("memory://bucket/none.png")
    assert caught.value.reason is Reason.MISSING
