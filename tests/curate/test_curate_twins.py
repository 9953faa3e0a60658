"""The second look: copies and others, read from their files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from court import FPS, film

from omnisource.clips.moments import Shown, compare
from omnisource.curate.engine import Engine
from omnisource.curate.samples import Sample
from omnisource.curate.twins import _ask, _looks_closer, glimpse_of, verify
from omnisource.media import DEFAULT_LIMITS, IsolatedPool, write_video


def test_what_does_not_decode_can_not_be_told(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    pictures = np.repeat(film(1).frames.clip(0, 255).astype(np.uint8)[..., None], 3, -1)
    write_video(path, zip(film(1).times.tolist(), pictures, strict=True), options={"crf": "20"})
    whole = Sample("a", "web", "clip", str(path), None, None, None, 64, 48, FPS, False, 40, 4.0)
    gone = replace(whole, sample_id="b", uri=str(tmp_path / "gone.mp4"))
    pairs = [(whole, whole), (gone, whole), (whole, gone)]
    assert list(verify(pairs, DEFAULT_LIMITS, None, Engine(workers=1))) == [(0, True), (1, None), (2, None)]


def test_what_fails_can_not_be_told_and_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    empty = Shown(np.zeros((2, 0, 0), np.uint8), np.arange(2) / FPS)
    with IsolatedPool(1) as pool:
        assert _ask(pool, compare, [(film(1), film(1)), (empty, film(1)), (None, film(1))]) == [True, None, None]
    said = " ".join(capsys.readouterr().err.split())
    assert "note: 1 pairs of films could not be compared (error: " in said


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


def a_film(fps: float | None, num_frames: int, start_s: float | None = None, end_s: float | None = None) -> Sample:
    return Sample("a", "web", "clip", "a.mp4", None, start_s, end_s, 64, 48, fps, False, num_frames, None)


@pytest.mark.parametrize(
    ("sample", "count", "start_s"),
    [
        (a_film(10.0, 8), 8, 0.0),  # all there are
        (a_film(10.0, 100), 32, 0.0),
        (a_film(10.0, 1000), 50, 0.0),  # one every two seconds
        (a_film(None, 2500), 50, 0.0),
        (a_film(10.0, 100_000), 1024, 0.0),
        (a_film(10.0, 1000, 5.0, 7.0), 20, 5.0),
        (a_film(10.0, 1000, 95.0, None), 32, 95.0),
    ],
)
def test_how_many_frames_of_a_film_are_compared(sample: Sample, count: int, start_s: float) -> None:
    glimpse = glimpse_of(sample, DEFAULT_LIMITS)
    assert (len(glimpse.indices), glimpse.start_s, glimpse.end_s) == (count, start_s, sample.end_s)
    assert list(glimpse.indices) == sorted(set(glimpse.indices))
    picture = glimpse_of(replace(sample, format="image"), DEFAULT_LIMITS)
    assert (picture.indices, picture.start_s, picture.end_s) == ((0,), 0.0, None)


def test_places_in_a_long_film_are_looked_at_as_closely_as_both_allow() -> None:
    def closer(web: Sample, test: Sample, *places: float) -> list[tuple[float, float | None, int]]:
        looks = _looks_closer(web, test, places, DEFAULT_LIMITS)
        return [(glimpse.start_s, glimpse.end_s, len(glimpse.indices)) for _, glimpse in looks]

    short = a_film(25.0, 50)
    assert closer(a_film(25.0, 9000), short, 10.0, 0.2) == [(0.0, None, 50), (9.5, 12.5, 75), (0.0, 3.0, 75)]
    assert closer(a_film(25.0, 9000, 100.0, 112.0), short, 10.0) == [(0.0, None, 50), (109.5, 112.0, 62)]
    assert closer(a_film(5.0, 9000), a_film(25.0, 500, 4.0, 6.0), 10.0) == [(4.0, 6.0, 10), (9.5, 12.5, 15)]
    # A long test film in 96 frames, the web film's piece, a second longer, as densely.
    assert closer(a_film(25.0, 90_000), a_film(25.0, 2400), 10.0) == [(0.0, None, 96), (9.5, 106.5, 97)]
