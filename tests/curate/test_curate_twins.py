"""The second look: copies and others, read from their files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from court import FPS, film

from omnisource.curate.engine import Engine
from omnisource.curate.samples import Sample
from omnisource.curate.twins import verify
from omnisource.media import DEFAULT_LIMITS, write_video


def test_what_does_not_decode_can_not_be_told(tmp_path: Path) -> None:
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
