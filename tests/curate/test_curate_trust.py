"""The query as evidence: its reliability is recovered, and what comes out is Bayes' rule."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnisource.curate.decide import decide
from omnisource.curate.units import units
from omnisource.recipe import Select
from omnisource.tables import SAMPLES, SCORES, table_from_rows, write_table

CLASSES = ["a", "b", "c", "d"]


def world(
    folder: Path, reliable: dict[str, float], count: int = 1500, sharp: float = 0.7, ours: float = 1.0
) -> dict[str, int]:
    """Tables of a web whose queries are right so often, and of a teacher whose probabilities are true; the truth.

    ours: what it gives to our classes of every second sample, being from elsewhere."""
    random = np.random.default_rng(1)
    samples: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    truth: dict[str, int] = {}
    for source, share in reliable.items():
        for number in range(count):
            probs = random.dirichlet(np.full(len(CLASSES), sharp))
            shown = int(random.choice(len(CLASSES), p=probs))
            query = shown if random.random() < share else int(random.choice([c for c in range(4) if c != shown]))
            name = f"{source}-{number:05d}"
            truth[name] = shown
            samples.append({"sample_id": name, "source": source, "role": "web", "format": "clip", "uri": name}
                           | {"query_label": CLASSES[query], "status": "ok"})  # fmt: skip
            order = np.argsort(-probs)
            probs *= ours if number % 2 else 1.0
            scores.append({"sample_id": name, "teacher": "video", "unit": "clip", "status": "ok"}
                          | {"top_classes": order.tolist(), "top_probs": probs[order].tolist()}
                          | {"query_prob": float(probs[query]), "probs": probs.tolist()})  # fmt: skip
    write_table(folder / "samples.parquet", table_from_rows(samples, SAMPLES))
    write_table(folder / "scores.parquet", table_from_rows(scores, SCORES))
    return truth


def test_the_queries_reliability_is_found_and_both_together_know_more(tmp_path: Path) -> None:
    reliable = {"good": 0.9, "fair": 0.6, "useless": 0.25}
    truth = world(tmp_path, reliable)
    accuracy: dict[bool, dict[str, float]] = {}
    for evidence in (False, True):
        with units(tmp_path / "scores.parquet", tmp_path / "samples.parquet", CLASSES, query_evidence=evidence) as db:
            rows = db.execute("SELECT source, sample_id, top, query FROM units").fetchall()
            if evidence:
                found = {source: trust for source, _, trust in db.execute("FROM trust").fetchall()}
                assert found == pytest.approx(reliable, abs=0.05)
        accuracy[evidence] = {
            source: np.mean([top == truth[name] for origin, name, top, _ in rows if origin == source])
            for source in reliable
        }
        by_query = {s: np.mean([query == truth[n] for o, n, _, query in rows if o == s]) for s in reliable}
    for source in ("good", "fair"):
        assert accuracy[True][source] > max(accuracy[False][source], by_query[source]) + 0.003
    assert accuracy[True]["useless"] == pytest.approx(accuracy[False]["useless"], abs=0.02)


@pytest.mark.parametrize(("count", "sharp", "expected"), [(6, 0.7, 0.6), (40, 200, 0.5), (1500, 2, 0.9)])
def test_few_samples_of_which_the_teacher_says_little_do_not_decide(
    tmp_path: Path, count: int, sharp: float, expected: float
) -> None:
    world(tmp_path, {"web": 0.9}, count=count, sharp=sharp)
    with units(tmp_path / "scores.parquet", tmp_path / "samples.parquet", CLASSES, query_evidence=True) as db:
        assert db.execute("SELECT trust FROM trust").fetchall() == [(pytest.approx(expected, abs=0.1),)]


@pytest.mark.parametrize("ours", [1.0, 0.3])
def test_probabilities_are_those_of_bayes_rule(tmp_path: Path, ours: float) -> None:
    world(tmp_path, {"good": 0.8, "poor": 0.3}, count=150, ours=ours)
    with units(tmp_path / "scores.parquet", tmp_path / "samples.parquet", CLASSES, True) as db:
        plain = db.execute("SELECT probs FROM units ORDER BY sample_id").fetchnumpy()["probs"]
    with units(tmp_path / "scores.parquet", tmp_path / "samples.parquet", CLASSES, query_evidence=True) as db:
        trust = {source: value for source, _, value in db.execute("FROM trust").fetchall()}
        rows = db.execute(
            "SELECT source, query, top, top_prob, query_prob, probs FROM units ORDER BY sample_id"
        ).fetchall()
        kept = [table for table in decide(db, Select(rule="query", threshold=0.6, label="soft"))]
    assert trust["poor"] < min(0.5, trust["good"])
    for before, (source, query, top, top_prob, query_prob, probs) in zip(plain, rows, strict=True):
        expected = np.array(before) * np.where(np.arange(4) == query, trust[source], (1 - trust[source]) / 3)
        # What is none of ours stays none of ours.
        expected /= expected.sum() + (1 - sum(before)) * (1 - trust[source]) / 3
        assert probs == pytest.approx(expected, abs=1e-5)
        assert (top, top_prob, query_prob) == pytest.approx(
            (expected.argmax(), expected.max(), expected[query]), abs=1e-5
        )
    decided = kept[0].to_pylist()
    assert {row["keep"] for row in decided} == {True, False}
    assert all((row["confidence"] >= 0.6) == row["keep"] for row in decided)
    if ours == 1:
        assert all(sum(row["probs"]) == pytest.approx(1) for row in decided if row["keep"])


def test_units_without_a_query_keep_the_teachers_word(tmp_path: Path) -> None:
    world(tmp_path, {"web": 0.8}, count=20)
    samples = [
        {"sample_id": f"web-{n:05d}", "source": "web", "role": "web", "format": "clip", "uri": "x", "status": "ok"}
        for n in range(20)
    ]
    write_table(tmp_path / "samples.parquet", table_from_rows(samples, SAMPLES))
    results = []
    for evidence in (False, True):
        with units(tmp_path / "scores.parquet", tmp_path / "samples.parquet", CLASSES, query_evidence=evidence) as db:
            results.append(db.execute("SELECT top, top_prob FROM units ORDER BY sample_id").fetchall())
    assert [top for top, _ in results[0]] == [top for top, _ in results[1]]
    assert [p for _, p in results[0]] == pytest.approx([p for _, p in results[1]], abs=1e-6)
