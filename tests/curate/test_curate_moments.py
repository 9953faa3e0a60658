"""Copies of a film, altered in every way that is common, against other films of the same place."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from court import FPS, film

from omnisource.curate.moments import Shown, same

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
