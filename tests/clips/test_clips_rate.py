"""With `input.fps` a film with every frame twice, at twice the rate, gives the same clips wherever clips are cut."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import omnisource
from omnisource import recipe
from omnisource.clips import Footage
from omnisource.curate.pieces import Look, pieces
from omnisource.curate.samples import Sample
from omnisource.evaluate import view_request
from omnisource.media import write_video
from omnisource.networks import Meta, create, save_checkpoint
from omnisource.recipe import Score, Training
from omnisource.train.decode import Reading
from omnisource.train.pool import Unit

RATE, FRAMES = 12.5, 100
GIVEN = {"frames": 8, "stride": 3, "fps": RATE, "size": 32, "short_side": 32}
TRAINING = Training.model_validate({"network": {"name": "slowonly_r18"}, "input": GIVEN})
READING = Reading(TRAINING, False, None, None, ("a", "b"))
UNIT = Unit("s", 0, "s/1", "1.mp4", "clip", 0.0, None, RATE, FRAMES, 32, True, None, 0)
SAMPLE = Sample("s/1", "s", "clip", "1.mp4", None, None, None, 32, 32, RATE, False, FRAMES, FRAMES / RATE)


def in_training(times: int) -> np.ndarray:
    # So short that there is one place for a clip: the beginning.
    unit = replace(UNIT, fps=RATE * times, num_frames=22 * times)
    return np.array(READING.request(unit, 0).indices)


def in_validation(times: int) -> np.ndarray:
    return np.array(READING.view(replace(UNIT, fps=RATE * times, num_frames=FRAMES * times)).indices)


def in_test(times: int) -> np.ndarray:
    row = {"format": "clip", "sample_id": "s/1", "uri": "1.mp4", "start_s": None, "end_s": None}
    facts = {"kind": "video", "fps": RATE * times, "num_frames": FRAMES * times, "duration_s": FRAMES / RATE}
    return view_request(row, facts, TRAINING.input, recipe.Test(clips=3), False).clips


def in_scoring(times: int) -> np.ndarray:
    sample = replace(SAMPLE, fps=RATE * times, num_frames=FRAMES * times)
    (request,) = pieces(sample, ["clip"], Look(False, 8, 3, RATE), Score(views=2))
    return request.clips


@pytest.mark.parametrize("cut", [in_training, in_validation, in_test, in_scoring])
def test_clips_show_the_same_frames(cut: Callable[[int], np.ndarray]) -> None:
    once, twice = cut(1), cut(2)
    steps = np.diff(once, axis=-1)
    assert (steps == 3).all(), "at the file's own rate the stride is the stride"
    np.testing.assert_array_equal(np.diff(twice, axis=-1), 2 * steps)
    assert np.abs(twice // 2 - once).max() <= 1, "the middle of twice as many frames may lie one beside"


def test_the_camera_is_fitted_to_frames_as_far_apart() -> None:
    assert [Footage("1.mp4", "a", 100, fps=fps).step(3, 12.5) for fps in (12.5, 25.0, 50.0, 2.0)] == [3, 6, 12, 1]
    assert Footage("1.mp4", "a", 100, fps=25.0).step(3, None) == Footage("1.mp4", "a", 100).step(3, 12.5) == 3


def test_a_checkpoint_remembers_the_rate(tmp_path: Path) -> None:
    network = create("slowonly_r18", 2, base_width=8)
    save_checkpoint(tmp_path / "x.safetensors", network, Meta(frames=4, stride=2, size=32, fps=10.0))
    random = np.random.default_rng(0)
    film = [np.roll(random.integers(0, 255, (40, 56, 3), np.uint8), 3 * n, axis=1) for n in range(12)]
    for name, each in (("once", 1), ("twice", 2)):
        frames = ((n / (10 * each), film[n // each]) for n in range(12 * each))
        write_video(tmp_path / f"{name}.mp4", frames, options={"crf": "0"})
    recognise = omnisource.load(tmp_path / "x.safetensors", workers=1)
    once, twice = (recognise(tmp_path / f"{name}.mp4", clips=1).probs for name in ("once", "twice"))
    np.testing.assert_allclose(once, twice, atol=1e-4)
