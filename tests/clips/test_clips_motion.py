"""Homographies between rendered frames whose true motion is known."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.clips import rng
from omnisource.clips.motion import (
    CORNERS,
    Miss,
    apply,
    from_movement,
    homography,
    is_in_front,
    is_plausible,
    to_movement,
)

WIDTH, HEIGHT = 176, 112


def world(seed: int) -> np.ndarray:
    """A picture full of things to hold on to, larger than what a camera shows of it."""
    draw = np.random.default_rng(seed)
    picture = np.full((600, 800, 3), 110, np.uint8)
    for _ in range(900):
        x, y, r = int(draw.integers(800)), int(draw.integers(600)), int(draw.integers(3, 26))
        colour = tuple(int(c) for c in draw.integers(0, 255, 3))
        if draw.random() < 0.5:
            cv2.circle(picture, (x, y), r, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(picture, (x, y), (x + r, y + int(draw.integers(3, 26))), colour, -1)
    return cv2.GaussianBlur(picture, (0, 0), 0.8)


def film(picture: np.ndarray, path: list[np.ndarray]) -> list[np.ndarray]:
    """What a camera in the middle of `picture` sees: frame i shows at p what it shows at path[i] p."""
    half = WIDTH / 2
    to_camera = np.array([[1 / half, 0, (0.5 - WIDTH / 2) / half], [0, 1 / half, (0.5 - HEIGHT / 2) / half], [0, 0, 1]])
    to_world = np.array([[half * 1.3, 0, 400], [0, half * 1.3, 300], [0, 0, 1]])
    flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
    return [
        cv2.warpPerspective(
            picture, to_world @ step @ to_camera, (WIDTH, HEIGHT), flags=flags, borderMode=cv2.BORDER_WRAP
        )
        for step in path
    ]


@given(st.lists(st.floats(-0.4, 0.4), min_size=8, max_size=8))
def test_movements_and_homographies_are_the_same_thing(values: list[float]) -> None:
    movement = np.array(values) / 2
    step = from_movement(movement)
    assert step[2, 2] == 1
    assert np.allclose(to_movement(step), movement, atol=1e-9)


def test_a_shift_moves_all_points_alike() -> None:
    step = from_movement(np.tile([0.1, -0.2], 4))
    assert np.allclose(step, [[1, 0, 0.1], [0, 1, -0.2], [0, 0, 1]])
    assert np.allclose(apply(step, np.array([[0.3, 0.3]])), [[0.4, 0.1]])


def test_known_motions_are_found() -> None:
    draw = rng(1)
    errors = []
    for number in range(12):
        truth = np.tile(draw.normal(0, 0.08, 2), 4) + draw.normal(0, 0.015, 8)
        earlier, later = film(world(number), [np.eye(3), from_movement(truth)])
        found = homography(earlier, later)
        assert not isinstance(found, Miss)
        errors.append(np.abs(to_movement(found) - truth).max())
    assert np.median(errors) < 0.003 and max(errors) < 0.01  # 0.003: a quarter of a pixel here


def test_size_and_aspect_do_not_matter() -> None:
    truth = np.tile([0.05, -0.03], 4) + rng(4).normal(0, 0.01, 8)
    pair = film(world(5), [np.eye(3), from_movement(truth)])
    for width, height in ((WIDTH, HEIGHT), (3 * WIDTH, 3 * HEIGHT), (WIDTH // 4 * 3, HEIGHT // 4 * 3)):
        found = homography(*(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in pair))
        assert not isinstance(found, Miss) and np.abs(to_movement(found) - truth).max() < 0.006
    middle = [frame[:, 24:-24] for frame in pair]  # a narrower picture of the same movement
    found = homography(*middle)
    assert not isinstance(found, Miss)
    narrower = WIDTH / (WIDTH - 48)  # its half side is the shorter unit
    moved = apply(from_movement(truth), CORNERS / narrower) * narrower
    assert np.abs(apply(found, CORNERS) - moved).max() < 0.008


def test_a_person_in_front_does_not_count_as_the_camera() -> None:
    truth = np.tile([0.06, 0.02], 4)
    earlier, later = film(world(3), [np.eye(3), from_movement(truth)])
    person = world(99)[:80, :40]
    earlier[20:100, 40:80] = person
    later[20:100, 70:110] = person  # walks against the camera
    found = homography(earlier, later)
    assert not isinstance(found, Miss)
    assert np.abs(to_movement(found) - truth).max() < 0.01


def test_what_no_camera_did_is_refused() -> None:
    here, there = film(world(1), [np.eye(3)])[0], film(world(2), [np.eye(3)])[0]
    assert homography(here, there) in (Miss.DISAGREE, Miss.FEW_POINTS, Miss.NARROW, Miss.WORSE)
    grey = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    assert homography(grey, grey) is Miss.FEW_POINTS
    sign = grey.copy()
    sign[50:90, 60:100] = world(4)[200:240, 300:340]
    assert homography(sign, sign) in (Miss.NARROW, Miss.FEW_POINTS)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (37, 5)])
def test_tiny_frames_do_not_fail(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    assert isinstance(homography(frame, frame), Miss)


def test_implausible_steps() -> None:
    assert is_plausible(np.eye(3))
    assert not is_plausible(np.diag([-1.0, 1, 1]))  # a mirror
    assert not is_plausible(from_movement(np.tile([0.9, 0], 4)))
    behind = np.eye(3)
    behind[2, 0] = 1.5
    assert not is_plausible(behind)
    for x, y in itertools.product((-1, 1), repeat=2):
        tilted = np.eye(3)
        tilted[2, :2] = -0.45 * x, -0.45 * y
        assert not is_in_front(tilted), "this corner of a square picture lies beside the camera, and no other"
