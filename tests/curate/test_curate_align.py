"""Class shares: weights that are known to be right, and units with a query that stay as they are."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from omnisource.curate.align import class_shares, weights_for
from omnisource.curate.units import units
from omnisource.recipe import Select
from omnisource.tables import SAMPLES, SCORES, table_from_rows, write_table

CLASSES = ["jump", "wave", "fly"]


def drawn(count: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(count, len(CLASSES))) * 2 + [1.5, 0.0, -0.5]
    powers = np.exp(logits)
    found: np.ndarray = powers / powers.sum(1, keepdims=True)
    return found


@settings(max_examples=10)
@given(st.lists(st.integers(1, 20), min_size=3, max_size=3), st.integers(0, 5))
def test_the_weighted_mean_is_the_targets_share(counts: list[int], seed: int) -> None:
    shares = np.array(counts) / sum(counts)
    probs = drawn(300, seed)
    weights = weights_for(probs, shares)
    raised = probs * weights
    assert (raised / raised.sum(1, keepdims=True)).mean(0) == pytest.approx(shares, abs=1e-4)
    assert np.log(weights).sum() == pytest.approx(0.0, abs=1e-9)


def test_what_is_shared_like_the_target_stays() -> None:
    probs = drawn(300, 1)
    assert weights_for(probs, probs.mean(0)) == pytest.approx(np.ones(3), abs=1e-4)


def tables(root: Path, ours: float = 1.0) -> tuple[Path, Path, np.ndarray]:
    """200 units without a query, 200 with one, 10 of a source of its own; the target has 6, 3 and no clip.

    ours: the probabilities' sum, below 1 if the teacher is from elsewhere."""
    probs = drawn(410, 2) * ours
    samples, scores = [], []
    for number, row in enumerate(probs):
        source = "films" if number < 200 else "images" if number < 400 else "few"
        name = f"w{number:03d}"
        sample = {"sample_id": name, "source": source, "role": "web", "format": "image", "uri": "x", "status": "ok"}
        samples.append(sample | {"query_label": "wave" if source == "images" else None})
        order = np.argsort(-row, kind="stable")
        scores.append(
            {"sample_id": name, "teacher": "a", "unit": "image", "status": "ok", "probs": row.tolist()}
            | {"top_classes": order.tolist(), "top_probs": row[order].tolist()}
            | {"query_prob": float(row[1]) if source == "images" else None}
        )
    for number in range(9):
        sample = {"sample_id": f"t{number}", "source": "target", "role": "target", "format": "clip", "uri": "x"}
        samples.append(sample | {"status": "ok", "split": "train", "label": "jump" if number < 6 else "wave"})
    write_table(root / "samples.parquet", table_from_rows(samples, SAMPLES))
    write_table(root / "scores.parquet", table_from_rows(scores, SCORES))
    return root / "scores.parquet", root / "samples.parquet", probs


@pytest.mark.parametrize("align", [0.5, 1.0])
@pytest.mark.parametrize("evidence", [False, True])
def test_only_units_without_a_query_are_aligned(tmp_path: Path, align: float, evidence: bool) -> None:
    scores, samples, probs = tables(tmp_path)
    shares = class_shares(samples, CLASSES)
    assert shares == pytest.approx([7 / 12, 4 / 12, 1 / 12])
    with units(scores, samples, CLASSES, True, query_evidence=evidence, align=align) as db:
        rows = db.sql("SELECT * FROM units ORDER BY sample_id").to_arrow_table().to_pylist()
        assert db.sql("SELECT source, unit FROM class_weights").fetchall() == [("films", "image")], "ten say too little"
    found = np.array([row["probs"] for row in rows])
    raised = probs[:200] * weights_for(probs[:200], shares) ** align
    assert found[:200] == pytest.approx(raised / raised.sum(1, keepdims=True), abs=1e-5)
    if align == 1.0:
        assert found[:200].mean(0) == pytest.approx(shares, abs=1e-4)
    assert found[400:] == pytest.approx(probs[400:], abs=1e-6)
    if not evidence:
        assert found[200:400] == pytest.approx(probs[200:400], abs=1e-6)
    for row, values in zip(rows, found, strict=True):
        assert row["top"] == values.argmax() and row["top_prob"] == pytest.approx(values.max(), abs=1e-6)


def test_what_is_none_of_ours_stays_none_of_ours(tmp_path: Path) -> None:
    scores, samples, _ = tables(tmp_path, ours=0.4)
    shares = class_shares(samples, CLASSES)
    with units(scores, samples, CLASSES, True, align=1.0) as db:
        found = np.array(db.sql("SELECT probs FROM units ORDER BY sample_id").fetchnumpy()["probs"].tolist())
    assert found[:200].sum(1) == pytest.approx(np.full(200, 0.4), abs=1e-5)
    assert found[:200].mean(0) == pytest.approx(0.4 * shares, abs=1e-4)


def test_held_out_thresholds_know_nothing_of_it() -> None:
    with pytest.raises(ValidationError, match="align or precision, not both"):
        Select.model_validate({"calibrate": {"align": 0.5, "precision": 0.9}})
    with pytest.raises(ValidationError, match=r"query_evidence or calibrate\.precision, not both"):
        Select.model_validate({"query_evidence": True, "calibrate": {"precision": 0.9}})
