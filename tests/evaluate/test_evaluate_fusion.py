"""Fusion is a weighted mean, and refuses what does not belong together."""

from pathlib import Path

import numpy as np
import pytest

from omnisource.errors import UserError
from omnisource.evaluate.fusion import best_share, fuse, parse_weights, sweep_weights
from omnisource.evaluate.predictions import Predictions, Unscored, read_predictions, write_predictions
from omnisource.tables import PREDICTIONS, table_from_rows


def predictions(name: str, probs: list[list[float]], ids: str = "pqr") -> Predictions:
    return Predictions(name, ["a", "b"], list(ids), np.array([0, 1, 0]), np.array(probs), [None] * 3, [], "list")


RGB = predictions("rgb", [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
FLOW = predictions("flow", [[0.4, 0.6], [0.1, 0.9], [0.45, 0.55]])


def test_the_weighted_mean_by_hand() -> None:
    fused = fuse([RGB, FLOW], [1, 3], "both")
    np.testing.assert_allclose(fused.probs, [[0.525, 0.475], [0.225, 0.775], [0.4875, 0.5125]])
    np.testing.assert_allclose(fuse([RGB, FLOW], [2, 0]).probs, RGB.probs)
    np.testing.assert_allclose(fuse([RGB, FLOW], [0, 7]).probs, FLOW.probs)


def test_a_sweep_finds_the_complementary_mix() -> None:
    sweep = sweep_weights(RGB, FLOW, steps=10)
    assert sweep[0] == (0.0, pytest.approx(2 / 3))
    assert sweep[-1] == (1.0, pytest.approx(1 / 3))
    share = best_share(sweep)
    assert dict(sweep)[share] == 1.0
    assert 0.2 <= share <= 0.6
    assert best_share([(0.0, 0.9), (0.25, 1.0), (0.5, 1.0), (0.75, 1.0), (1.0, 0.8)]) == 0.5, "the middle of a plateau"


def test_unscored_samples_stay_unscored() -> None:
    short = Predictions(**{**vars(FLOW.take([0, 2])), "failed": [Unscored("q", "b", None, "missing")]})
    shorter = Predictions(**{**vars(RGB.take([0, 1])), "failed": [Unscored("r", "a", None, "missing")]})
    fused = fuse([shorter, short], [1, 1])
    assert fused.sample_ids == ["p"]
    assert [unscored.sample_id for unscored in fused.failed] == ["q", "r"]


def test_tables_without_a_common_sample_are_refused() -> None:
    lost = [Unscored(name, "a", None, "missing") for name in "pqr"]
    first = Predictions(**{**vars(RGB.take([0])), "failed": lost[1:]})
    second = Predictions(**{**vars(FLOW.take([1, 2])), "failed": lost[:1]})
    with pytest.raises(UserError, match=r"none of 3 test samples was scored in every table \(scored: rgb 1, flow 2\)"):
        fuse([first, second], [1, 1])


@pytest.mark.parametrize("text", ["1", "1:2:3", "1:x", "-1:2", "0:0", "nan:1", "inf:1", ""])
def test_bad_weights_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--weights"):
        parse_weights(text, 2)


def test_good_weights() -> None:
    assert parse_weights("1:1.5", 2) == [1.0, 1.5]


@pytest.mark.parametrize("spoilt", [[float("nan"), 1.0], [None, 1.0], [float("inf"), 0.0], [-0.5, 1.5]])
def test_what_is_no_probability_is_refused(tmp_path: Path, spoilt: list[float]) -> None:
    row = {"sample_id": "p", "view": -1, "label": "a", "predicted": "a", "status": "ok"}
    write_predictions(tmp_path / "t.parquet", table_from_rows([row | {"probs": spoilt}], PREDICTIONS), ["a", "b"])
    with pytest.raises(UserError, match=r"t\.parquet: some of its probabilities are no probabilities"):
        read_predictions(tmp_path / "t.parquet")
