"""Device-side transforms against their plain definitions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnisource.clips import augment

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def frames(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def plain(clip: torch.Tensor) -> torch.Tensor:
    x = clip.double().permute(0, 4, 1, 2, 3)
    return ((x - torch.tensor(MEAN).view(3, 1, 1, 1)) / torch.tensor(STD).view(3, 1, 1, 1)).float()


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 7))
def test_normalise_and_flip(count: int, length: int, height: int, width: int, seed: int) -> None:
    clip = frames(count, length, height, width, 3, seed=seed)
    flip = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
    before = clip.clone()
    out = augment(clip, mean=MEAN, std=STD, flip=flip)
    expected = plain(clip)
    expected[flip] = expected[flip].flip(-1)
    assert out.dtype == torch.float32 and torch.allclose(out, expected, atol=1e-4)
    assert torch.equal(clip, before)


def test_an_image_stands_still() -> None:
    image = frames(2, 1, 5, 5, 3)
    out = augment(image, mean=MEAN, std=STD, length=4)
    assert out.shape == (2, 3, 4, 5, 5)
    assert torch.equal(out[:, :, 3], augment(image, mean=MEAN, std=STD)[:, :, 0])


def test_flow_has_two_channels_and_flipping_negates_x() -> None:
    flow = frames(2, 3, 6, 6, 3)
    out = augment(flow, mean=MEAN, std=STD, flow=True)
    assert out.shape == (2, 2, 3, 6, 6) and out.abs().max() <= 1
    flipped = augment(flow, mean=MEAN, std=STD, flow=True, flip=torch.tensor([True, False]))
    # 8 bits cannot negate exactly about 128: 255 - x is half a level off.
    assert torch.allclose(flipped[0, 0], -out[0, 0].flip(-1), atol=1.01 / 128)
    assert torch.equal(flipped[0, 1], out[0, 1].flip(-1))
    assert torch.equal(flipped[1], out[1])


def still(count: int, length: int) -> torch.Tensor:
    return torch.eye(3).expand(count, length, 3, 3)


def test_a_resting_camera_shows_the_image() -> None:
    image = frames(2, 1, 8, 8, 3)
    out = augment(image, mean=MEAN, std=STD, camera=still(2, 3))
    assert torch.allclose(out, plain(image).expand(-1, -1, 3, -1, -1), atol=1e-3)


def test_a_moving_camera_shifts_the_picture_and_reflects_at_the_border() -> None:
    image = frames(1, 1, 8, 8, 3)
    camera = still(1, 2).clone()
    camera[0, 1, 0, 2] = 2 / 8  # frame 1 looks one pixel further right
    out = augment(image, mean=MEAN, std=STD, camera=camera)
    expected = plain(image)[0, :, 0]
    assert torch.allclose(out[0, :, 1, :, :-1], expected[:, :, 1:], atol=1e-3)
    assert torch.allclose(out[0, :, 1, :, -1], expected[:, :, -1], atol=1e-3)


def test_flipping_mirrors_a_clip_of_a_moving_camera() -> None:
    image = frames(2, 1, 9, 9, 3)
    camera = still(2, 3).clone() + 0.1 * torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    straight = augment(image, mean=MEAN, std=STD, camera=camera, size=7)
    flipped = augment(image, mean=MEAN, std=STD, camera=camera, size=7, flip=torch.tensor([False, True]))
    assert straight.shape == (2, 3, 3, 7, 7)
    assert torch.allclose(flipped[0], straight[0], atol=1e-4)
    assert torch.allclose(flipped[1], straight[1].flip(-1), atol=1e-3)


def test_a_camera_over_a_video_is_refused() -> None:
    with pytest.raises(ValueError, match="T = 2"):
        augment(frames(1, 2, 4, 4, 3), mean=MEAN, std=STD, camera=still(1, 2))
