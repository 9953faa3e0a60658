"""The second look: copies of a film, altered in every way that is common, against other films of the same place."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from omnisource.curate.engine import Engine
from omnisource.curate.samples import Sample
from omnisource.curate.twins import Shown, same, verify
from omnisource.media import DEFAULT_LIMITS, write_video

F32 = npt.NDArray[np.float32]
FPS = 10.0


def film(seed: int, seconds: float = 4.0) -> Shown:
    """A player crosses a court, of which every film shows the same; how, and what of a size, the seed says."""
    rng = np.random.default_rng(99)
    court = cv2.resize(rng.uniform(40, 200, (9, 12)).astype(np.float32), (64, 48), interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(seed)
    start, speed, phase = rng.uniform(12, 34, 2), rng.uniform(-4, 4, 2), rng.uniform(0, 6)
    times = np.arange(round(seconds * FPS)) / FPS
    frames = np.repeat(court[None], len(times), 0)
    for frame, time in zip(frames, times, strict=True):
        x, y = np.clip(start + time * speed + 6 * np.sin(2 * time + phase), 4, (52, 28)).astype(int)
        cv2.rectangle(frame, (int(x), int(y)), (int(x) + 5, int(y) + 9), 250.0, -1)
    return Shown(frames, times)


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


def test_what_does_not_overlap_or_decode_can_not_be_told(tmp_path: Path) -> None:
    sparse = Shown(film(1).frames[5::15], np.array([0.0, 30.0, 60.0]))
    assert same(sparse, film(1)) is None  # alike, but a frame every 30 seconds meets no clip twice
    picture = Shown(film(1).frames[:1], np.zeros(1))
    assert same(picture, picture) is None
    path = tmp_path / "film.mp4"
    pictures = np.repeat(film(1).frames.clip(0, 255).astype(np.uint8)[..., None], 3, -1)
    write_video(path, zip(film(1).times.tolist(), pictures, strict=True), options={"crf": "20"})
    whole = Sample("a", "web", "clip", str(path), None, None, None, 64, 48, FPS, False, 40, 4.0)
    gone = replace(whole, sample_id="b", uri=str(tmp_path / "gone.mp4"))
    pairs = [(whole, whole), (gone, whole), (whole, gone)]
    assert list(verify(pairs, DEFAULT_LIMITS, None, Engine(workers=1))) == [(0, True), (1, None), (2, None)]


def test_a_clip_is_found_in_a_long_film_and_in_no_other(tmp_path: Path) -> None:
    def written(name: str, seeds: Sequence[int], form: str) -> Sample:
        """A film of one scene after another; a still camera sees all of them."""
        frames = np.concatenate([film(seed).frames for seed in seeds]).clip(0, 255).astype(np.uint8)
        path = tmp_path / f"{name}.mp4"
        times = (np.arange(len(frames)) / FPS).tolist()
        write_video(path, zip(times, np.repeat(frames[..., None], 3, -1), strict=True), options={"crf": "20"})
        facts = (None, None, None, 64, 48, FPS, False, len(frames), len(frames) / FPS)
        return Sample(name, "s", form, str(path), *facts)

    tests = [written(f"test {seed}", [seed], "clip") for seed in range(2, 7)]
    whole = written("whole", [*range(100, 115), *range(2, 7), *range(115, 130)], "untrimmed")
    other = written("other", range(200, 236), "untrimmed")
    pairs = [(whole, test) for test in tests] + [(other, test) for test in tests]
    verdicts = [copy for _, copy in verify(pairs, DEFAULT_LIMITS, None, Engine(workers=1))]
    assert verdicts == [True] * len(tests) + [False] * len(tests)
