"""Copies of a film, altered in every way that is common, against other films of the same place."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from court import FPS, film
from hypothesis import given
from hypothesis import strategies as st

from omnisource.clips.moments import Shown, _median, _nanmedian, compare, compare_closer, same

F32 = npt.NDArray[np.float32]


def noisy(frames: F32, seed: int = 0) -> F32:
    return frames + np.random.default_rng(seed).normal(0, 3, frames.shape).astype(np.float32)


def resized(frames: F32, width: int, height: int) -> F32:
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


def subtitled(frames: F32) -> F32:
    frames = frames.copy()
    frames[:, 40:46, 6:58] = 0
    frames[:, 42:44, 10:54:2] = 255
    return frames


CHANGES: dict[str, Callable[[Shown], Shown]] = {
    "encoded again": lambda film: replace(film, frames=noisy(film.frames)),
    "resized": lambda film: replace(film, frames=resized(film.frames, 32, 24)),
    "cropped": lambda film: replace(film, frames=film.frames[:, 2:45, 4:62]),
    "mirrored": lambda film: replace(film, frames=np.ascontiguousarray(film.frames[:, :, ::-1])),
    "subtitled": lambda film: replace(film, frames=subtitled(film.frames)),
    "every second frame": lambda film: Shown(film.frames[::2], film.times[::2]),
    "squeezed": lambda film: replace(film, frames=resized(film.frames, 48, 48)),
    "brighter": lambda film: replace(film, frames=film.frames * 0.8 + 40),
    "a part": lambda film: Shown(film.frames[10:34], film.times[10:34] - film.times[10]),
    "in a longer film": lambda a: Shown(
        np.concatenate([film(77).frames, a.frames, film(78).frames]), np.arange(120) / FPS
    ),
    "one frame": lambda film: Shown(film.frames[17:18], np.zeros(1)),
    "one frame, mirrored": lambda film: Shown(np.ascontiguousarray(film.frames[17:18, :, ::-1]), np.zeros(1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_known_and_other_films_of_the_place_are_not(change: str) -> None:
    for seed in (1, 2):
        assert same(CHANGES[change](film(seed)), film(seed)) is True
        assert not same(CHANGES[change](film(seed)), film(seed + 10))


def test_a_film_in_which_nothing_moves_is_compared_as_a_picture() -> None:
    def resting(place: int) -> Shown:
        frames = film(0).frames[:1].copy()
        cv2.rectangle(frames[0], (place, 20), (place + 9, 30), 230.0, -1)
        return Shown(np.repeat(frames, 20, 0), np.arange(20) / FPS)

    still = resting(30)
    assert same(replace(still, frames=noisy(still.frames)), still) is True
    assert same(Shown(still.frames[:1], np.zeros(1)), still) is True
    assert same(resting(15), still) is False
    assert same(film(3), still) is False


def test_what_does_not_overlap_can_not_be_told() -> None:
    sparse = Shown(film(1).frames[5::15], np.array([0.0, 30.0, 60.0]))
    assert same(sparse, film(1)) is None  # alike, but a frame every 30 seconds meets no clip twice
    picture = Shown(film(1).frames[:1], np.zeros(1))
    assert same(picture, picture) is None


def test_a_long_film_seen_seldom_is_to_be_looked_at_closer() -> None:
    """Every fifteenth frame of it says too little; where its scenes are most like the clip, more are to be read."""
    clip = film(3)
    scenes = np.concatenate([film(seed).frames for seed in (20, 21, 3, 22, 23)])
    seldom = Shown(scenes[::10], np.arange(len(scenes))[::10] / FPS)
    places = compare((seldom, clip))
    assert isinstance(places, list)
    assert len(places) == 3
    assert min(abs(place - 8.0) for place in places) <= 1.0
    often = Shown(scenes, np.arange(len(scenes)) / FPS)
    assert compare((often, clip)) is True
    assert compare_closer((often, clip)) is True
    assert compare((film(30), clip)) is compare_closer((film(30), clip)) is False
    for films in ((None, clip), (clip, None), (None, None)):
        assert compare(films) is compare_closer(films) is None


def test_more_is_asked_of_a_place_in_a_long_film() -> None:
    clip = film(5)
    noise = np.random.default_rng(1).normal(0, 60, clip.frames.shape).astype(np.float32)
    worn = Shown(clip.frames + noise * clip.moving, clip.times)  # what moves correlates by 0.75 to 0.8
    assert (compare((worn, clip)), compare_closer((worn, clip))) == (True, False)


@given(st.integers(1, 9), st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_median_is_that_of_numpy(count: int, width: int, random: Random) -> None:
    values = np.array([[random.choice([np.nan, random.uniform(-1, 1)]) for _ in range(width)] for _ in range(count)])
    values[random.randrange(count)] = 0.25
    values = values.astype(np.float32)
    assert np.array_equal(_nanmedian(values), np.nanmedian(values, axis=0))
    values = np.nan_to_num(values)
    assert np.array_equal(_median(values), np.median(values, axis=0))
