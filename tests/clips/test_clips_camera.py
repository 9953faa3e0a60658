"""Drawing camera movements, aiming at images, and the file that keeps a camera."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_clips_motion import world

from omnisource.clips import Box, Camera, aim, augment, draw_path, load_camera, read_moving, rng, save_camera
from omnisource.clips.camera import MAX_SHRINK, Gaussian, fit_gaussian
from omnisource.clips.motion import apply, from_movement, is_in_front, to_movement
from omnisource.errors import UserError


def camera(spread: float = 0.03) -> Camera:
    """Drifts right and down, wobbles; class `up` drifts up."""
    root = rng(5).normal(0, spread / 3, (8, 8)) + np.tile(np.eye(2), (4, 4)) * spread / 4
    covariance = root @ root.T
    return Camera(
        8,
        Gaussian(np.tile([0.02, 0.01], 4), covariance, 100),
        {"up": Gaussian(np.tile([0, -0.05], 4), covariance / 100, 50)},
    )


def test_fit_is_the_maximum_likelihood_estimate() -> None:
    movements = rng(0).normal(0, 1, (50, 8))
    fitted = fit_gaussian(movements)
    assert np.allclose(fitted.mean, movements.mean(0))
    assert np.allclose(fitted.covariance, np.cov(movements.T, bias=True))


def test_drawn_steps_have_the_fitted_mean_and_covariance() -> None:
    source = camera()
    steps = np.array([to_movement(draw_path(source, "homography", 2, rng(key))[1]) for key in range(3000)])
    scale = source.overall.covariance.max()
    assert np.abs(steps.mean(0) - source.overall.mean).max() < 4 * np.sqrt(scale / 3000)
    assert np.abs(np.cov(steps.T) - source.overall.covariance).max() < 0.12 * scale


@pytest.mark.parametrize("mode", ["still", "translate-random", "translate-constant", "homography"])
def test_paths_begin_at_rest_and_repeat_with_their_key(mode) -> None:
    path = draw_path(camera(), mode, 8, rng(1))
    assert path.shape == (8, 3, 3) and np.array_equal(path[0], np.eye(3))
    assert np.array_equal(path, draw_path(camera(), mode, 8, rng(1)))
    steps = np.array([np.linalg.inv(path[i - 1]) @ path[i] for i in range(1, 8)])
    steps /= steps[:, 2:, 2:]
    if mode == "still":
        assert np.allclose(path, np.eye(3))
    elif mode.startswith("translate"):
        assert np.allclose(steps[:, :2, :2], np.eye(2)) and np.allclose(steps[:, 2], [0, 0, 1])
        assert np.allclose(steps, steps[0]) == (mode == "translate-constant")
    else:
        assert not np.allclose(steps[:, :2, :2], np.eye(2), atol=1e-4)


def test_a_class_has_its_own_camera() -> None:
    ups = [draw_path(camera(), "homography-per-class", 2, rng(key), "up")[1, 1, 2] for key in range(50)]
    assert np.mean(ups) == pytest.approx(-0.05, abs=0.01)
    unknown = draw_path(camera(), "homography-per-class", 4, rng(3), "never seen")
    assert np.array_equal(unknown, draw_path(camera(), "homography", 4, rng(3)))


def test_a_wild_gaussian_still_gives_paths_a_camera_can_follow() -> None:
    wild = Camera(1, Gaussian(np.zeros(8), np.eye(8) * 4, 30))
    for key in range(30):
        path = draw_path(wild, "homography", 5, rng(key))
        assert all(is_in_front(step) for step in path)
        part, views = aim(200, 100, Box(20, 20, 80, 80), path)
        assert np.isfinite(views).all() and part.right <= 200
    with pytest.raises(ValueError, match="needs a fitted camera"):
        draw_path(None, "homography", 4, rng(0))


@given(
    st.integers(8, 800),
    st.integers(8, 800),
    st.integers(0, 2**32),
    st.sampled_from([0.005, 0.03, 0.2]),
    st.integers(1, 8),
)
def test_aim_stays_inside_wherever_it_can(width: int, height: int, key: int, spread: float, length: int) -> None:
    draw = rng(key)
    w, h = int(draw.integers(2, width + 1)), int(draw.integers(2, height + 1))
    left, top = int(draw.integers(width - w + 1)), int(draw.integers(height - h + 1))
    path = draw_path(camera(spread), "homography", length, draw)
    part, views = aim(width, height, Box(left, top, left + w, top + h), path)
    assert 0 <= part.left < part.right <= width and 0 <= part.top < part.bottom <= height
    assert views.shape == (length, 3, 3) and np.isfinite(views).all()
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.0]])
    first = apply(views[0].astype(np.float64), corners)
    assert np.abs(first).max() < 1.01  # what is shown first is always within the image
    pixels = np.ptp(first, axis=0) / 2 * (part.width, part.height)
    assert (pixels > np.array([w, h]) * MAX_SHRINK - 1e-3).all() and (pixels < np.array([w, h]) + 1e-3).all()


def test_aim_moves_the_crop_rather_than_look_over_the_border() -> None:
    right = draw_path(Camera(1, Gaussian(np.tile([0.05, 0], 4), np.zeros((8, 8)), 30)), "homography", 5, rng(0))
    # 400 wide: a step is 10 pixels, the clip moves 40 to the right, and the crop touches the right border.
    part, views = aim(400, 300, Box(300, 100, 400, 200), right)
    assert part == Box(260, 100, 400, 200)
    corners = np.array([[-1, -1], [1, 1.0]])
    assert np.allclose(apply(views[0].astype(float), corners), [[-1, -1], [100 / 70 - 1, 1]], atol=1e-5)
    assert np.allclose(apply(views[4].astype(float), corners), [[40 / 70 - 1, -1], [1, 1]], atol=1e-5)


def test_aim_at_rest_is_the_crop() -> None:
    part, views = aim(300, 200, Box(10, 20, 130, 90), draw_path(None, "still", 3, rng(0)))
    assert part == Box(10, 20, 130, 90)
    assert np.allclose(views, np.eye(3), atol=1e-6)


def test_the_clip_is_the_image_warped_once_per_frame(tmp_path: Path) -> None:
    picture = cv2.GaussianBlur(world(1), (0, 0), 4)
    Image.fromarray(picture).save(tmp_path / "world.png")
    height, width = picture.shape[:2]
    movement = np.array([0.02, 0.01, 0.03, 0.0, 0.01, 0.02, 0.02, 0.02])
    path = draw_path(Camera(1, Gaussian(movement, np.zeros((8, 8)), 30)), "homography", 4, rng(0))
    box = Box(250, 200, 410, 360)
    image, view = read_moving(tmp_path / "world.png", path, lambda w, h: box, 80)
    assert image.shape == (1, 100, 100, 3)
    clip = augment(
        torch.from_numpy(image)[None], mean=(0, 0, 0), std=(1, 1, 1), camera=torch.from_numpy(view)[None], size=80
    )
    # By the definition, in float64, from the original image: frame i at p shows the image at H_2 ... H_i p.
    half, step = max(width, height) / 2, from_movement(movement)
    axis = (np.arange(80) + 0.5) * 2 - 0.5
    x, y = np.meshgrid((250 + axis + 0.5 - width / 2) / half, (200 + axis + 0.5 - height / 2) / half)
    for i in range(4):
        seen = apply(np.linalg.matrix_power(step, i), np.stack([x.ravel(), y.ravel()], 1)) * half
        pixels = (seen + np.array([width / 2 - 0.5, height / 2 - 0.5])).astype(np.float32).reshape(80, 80, 2)
        expected = cv2.remap(picture, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR).astype(float)
        difference = np.abs(clip[0, :, i].permute(1, 2, 0).numpy() - expected)
        assert difference.mean() < 1.5 and np.quantile(difference, 0.99) < 6


def test_a_camera_survives_its_file(tmp_path: Path) -> None:
    save_camera(tmp_path / "camera.json", camera(), {"pairs": {"used": 100}})
    loaded = load_camera(tmp_path / "camera.json")
    assert loaded.stride == 8 and set(loaded.classes) == {"up"}
    assert np.array_equal(loaded.overall.mean, camera().overall.mean)
    assert np.array_equal(loaded.overall.covariance, camera().overall.covariance)


def test_a_camera_serves_the_stride_and_the_rate_that_it_was_fitted_at(tmp_path: Path) -> None:
    of_files, of_seconds = tmp_path / "files.json", tmp_path / "seconds.json"
    save_camera(of_files, camera(), {})
    save_camera(of_seconds, replace(camera(), fps=12.5), {})
    assert "fps" not in json.loads(of_files.read_text()), "as written before cameras knew a rate"
    assert load_camera(of_files, 8).fps is None and load_camera(of_seconds, 8, 12.5).fps == 12.5
    assert camera().identity == load_camera(of_files).identity != load_camera(of_seconds).identity
    with pytest.raises(UserError, match="stride of 8 frames, these clips have 8 frames at 25 a second"):
        load_camera(of_files, 8, 25)
    with pytest.raises(UserError, match=r"stride of 8 frames at 12\.5 a second, these clips have 8 frames;"):
        load_camera(of_seconds, 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(version=2),
        lambda c: c.pop("overall"),
        lambda c: c["overall"].update(mean=[0] * 7),
        lambda c: c["overall"]["covariance"][0].__setitem__(0, -1),
        lambda c: c["overall"]["covariance"][0].__setitem__(0, float("nan")),
        lambda c: c.update(classes=3),
        lambda c: c.update(stride=0),
        lambda c: c.update(stride=float("inf")),
        lambda c: c.update(fps=0),
        lambda c: c.update(fps=float("nan")),
        lambda c: c.update(fps="fast"),
        lambda c: c["overall"].update(mean=[10**400] * 8),
        lambda c: c["overall"].update(pairs=float("inf")),
    ],
)
def test_a_spoilt_file_is_refused_in_one_line(tmp_path: Path, change) -> None:
    path = tmp_path / "camera.json"
    save_camera(path, camera(), {})
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"camera\.json: not a fitted camera.*omnisource camera fit"):
        load_camera(path)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such camera"):
        load_camera(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b'{"' + b"\xff" * 5000)
    with pytest.raises(UserError, match="not a fitted camera") as caught:
        load_camera(tmp_path / "bytes.json")
    assert len(str(caught.value)) < 600  # and not all of it is repeated
