"""What TensorBoard shows of a run is what its log says."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_small import Small, settings

from omnisource.networks import takes_frames
from omnisource.recipe import Training
from omnisource.train import build_pool, train
from omnisource.train.board import Board


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_numbers_stand_at_their_step_and_words_are_left_out(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.write({"step": 3, "loss": 0.5, "sources": {"web": {"loss": 0.25}}, "note": "words"}, {"clips_per_s": 7})
    board.write({"step": 4, "loss": 0.125})
    board.close()
    assert scalars(tmp_path) == {
        "loss": [(3, 0.5), (4, 0.125)],
        "sources/web/loss": [(3, 0.25)],
        "clips_per_s": [(3, 7.0)],
    }


def test_steps_that_a_killed_run_did_again_are_shown_once(tmp_path: Path) -> None:
    killed = Board(tmp_path)
    for step in range(1, 6):
        killed.write({"step": step, "loss": float(step)})
    killed.close()
    again = Board(tmp_path)
    for step in range(4, 8):
        again.write({"step": step, "loss": 10.0 * step})
    again.close()
    assert scalars(tmp_path)["loss"] == [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50), (6, 60), (7, 70)]


def test_a_training_writes_its_log_there_too(small: Small) -> None:
    training = Training.model_validate(settings("slowonly_r18") | {"epochs": 2})
    folder = small.workspace.run_dir("board")
    pool = build_pool(small.recipe, small.workspace, tuple(small.recipe.sources), takes_frames(training))
    train(training, pool, folder, seed=0)
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [(row["step"], pytest.approx(row["loss"])) for row in logged if "loss" in row]
    assert losses and scalars(folder)["loss"] == losses
