"""Calibration where the right answer is known: drawn labels, counted precisions, planted temperatures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from omnisource.curate import select, what_if
from omnisource.curate.calibrate import (
    NEVER,
    fit,
    fit_temperature,
    match_temperature,
    mean_confidence,
    negative_log_likelihood,
    precise_threshold,
)
from omnisource.curate.decide import decide, quantile_thresholds
from omnisource.curate.units import units
from omnisource.errors import UserError
from omnisource.recipe import Recipe, Select
from omnisource.tables import SAMPLES, SCORES, read_table, table_from_rows, write_table
from omnisource.workspace import Workspace, open_workspace

CLASSES = ["jump", "wave", "fly"]


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def drawn(count: int, seed: int = 0, sharper: float = 1.0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels drawn from softmax(z), and the probabilities of a teacher that is `sharper` times as sure."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, len(CLASSES))) * 2
    honest = softmax(logits)
    truth = (rng.random((count, 1)) > honest.cumsum(1)).sum(1).clip(max=len(CLASSES) - 1)
    return softmax(logits * sharper), truth


@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_the_planted_temperature_is_found(sharper: float) -> None:
    probs, truth = drawn(20_000, sharper=sharper)
    found = fit_temperature(probs, truth)
    assert found == pytest.approx(sharper, rel=0.05)
    assert negative_log_likelihood(probs, truth, found) <= negative_log_likelihood(probs, truth, 1.0)
    for other in (0.9 * found, 1.1 * found):
        assert negative_log_likelihood(probs, truth, found) < negative_log_likelihood(probs, truth, other)


def test_a_teacher_that_is_always_or_never_right_gets_the_limits() -> None:
    probs = np.array([[0.7, 0.2, 0.1]] * 5)
    assert fit_temperature(probs, np.zeros(5, int)) == pytest.approx(0.02)
    assert fit_temperature(probs, np.full(5, 2)) == pytest.approx(50.0)


@pytest.mark.parametrize("accuracy", [0.5, 0.7, 0.8])
def test_a_matched_teacher_is_as_sure_of_the_web_as_it_is_right(accuracy: float) -> None:
    probs, _ = drawn(2000)
    found = match_temperature(probs, accuracy)
    assert 0.4 < found < 20 and mean_confidence(probs, found) == pytest.approx(accuracy, abs=1e-6)


def test_a_matched_temperature_has_bounds() -> None:
    probs, _ = drawn(200)
    assert match_temperature(probs, 1.0) == pytest.approx(0.4), "the query must not fall silent"
    assert match_temperature(probs, 0.1) == pytest.approx(20.0)


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.6, 0.9]), st.booleans()), max_size=25),
    st.sampled_from([0.0, 0.5, 2 / 3, 0.8, 1.0]),
    st.integers(1, 4),
)
def test_the_threshold_is_the_lowest_that_is_precise(
    rows: list[tuple[float, bool]], precision: float, least: int
) -> None:
    confidence = np.array([c for c, _ in rows])
    right = np.array([r for _, r in rows], bool)
    possible = [
        t for t in confidence if (confidence >= t).sum() >= least and right[confidence >= t].mean() >= precision - 1e-9
    ]
    assert precise_threshold(confidence, right, precision, least) == (min(possible) if possible else NEVER)


def rows_of(
    probs: np.ndarray[Any, Any], names: list[str], unit: str, labels: np.ndarray[Any, Any], teacher: str
) -> list[dict[str, Any]]:
    rows = []
    for name, row, label in zip(names, probs.astype(np.float32), labels, strict=True):
        order = np.argsort(-row, kind="stable")
        rows.append(
            {
                "sample_id": name,
                "teacher": teacher,
                "unit": unit,
                "top_classes": order.tolist(),
                "top_probs": row[order].tolist(),
                "probs": row.tolist(),
                "query_prob": float(row[label]),
                "status": "ok",
            }
        )
    return rows


def a_recipe(root: Path, **settings: Any) -> Recipe:
    training = {"network": {"name": "tsn_r18"}}
    return Recipe.model_validate(
        {
            "name": "calibrate",
            "data": root,
            "sources": {
                "target": {"role": "target", "format": "image", "path": "target"},
                "web": {"role": "web", "format": "image", "path": "web"},
            },
            "teachers": {"image": training, "video": training},
            "student": training,
            "score": {"image": ["image", "video"]},
            "select": settings,
        }
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """As `score` and `calibrate` leave it: 3,000 held-out samples, 3,000 web images, two teachers that are too sure."""
    with open_workspace(tmp_path / "ws") as workspace:
        pass
    web, held = [f"w{n:05d}" for n in range(3000)], [f"t{n:05d}" for n in range(3000)]
    scores, calibration = [], []
    for seed, (teacher, sharper) in enumerate([("a", 3.0), ("b", 2.0)]):
        probs, truth = drawn(3000, seed=5, sharper=sharper)
        calibration += rows_of(probs, held, "image", truth, teacher)
        probs, queries = drawn(3000, seed=6, sharper=sharper)
        scores += rows_of(probs, web, "image", queries, teacher)
        assert seed < 2
    base = {"role": "web", "format": "image", "uri": "x", "status": "ok"}
    samples = [
        base | {"sample_id": n, "source": "web", "query_label": CLASSES[q]} for n, q in zip(web, queries, strict=True)
    ]
    samples += [
        base | {"sample_id": n, "source": "target", "role": "target", "label": CLASSES[y], "split": "val"}
        for n, y in zip(held, truth, strict=True)
    ]
    for name, rows, schema in (
        ("samples", samples, SAMPLES),
        ("scores", scores, SCORES),
        ("calibration", calibration, SCORES),
    ):
        write_table(workspace.table(name), table_from_rows(rows, schema))
    workspace.run_stage("ingest", settings={}, after=[], outputs=[], work=lambda _: {"classes": CLASSES})
    for stage in ("score", "calibrate"):
        workspace.run_stage(stage, settings={}, after=[], outputs=[], work=lambda _: {})
    return workspace


def test_temperatures_of_teachers_are_told_apart_and_applied_before_they_are_averaged(workspace: Workspace) -> None:
    recipe = a_recipe(workspace.root, rule="teacher", label="soft", threshold=0.6, calibrate={"temperature": True})
    record = select(recipe, workspace)
    found = {teacher: kinds["image"] for teacher, kinds in record.counts["temperatures"].items()}
    assert found["a"]["T"] == pytest.approx(3.0, rel=0.1) and found["b"]["T"] == pytest.approx(2.0, rel=0.1)
    assert found["a"]["nll_after"] < found["a"]["nll_before"] - 0.1
    scores = read_table(workspace.table("scores")).to_pylist()
    mean = {row["sample_id"]: np.zeros(3) for row in scores}
    for row in scores:
        powers = np.array(row["probs"], np.float64) ** (1 / found[row["teacher"]]["T"])
        mean[row["sample_id"]] += powers / powers.sum() / 2
    kept = 0
    for row in read_table(workspace.table("decisions-default")).to_pylist():
        wanted = mean[row["sample_id"]]
        assert row["confidence"] == pytest.approx(wanted.max(), abs=1e-3)
        if row["keep"]:
            kept += 1
            assert row["probs"] == pytest.approx(wanted, abs=1e-3)
    assert kept == record.counts["kept"] and 500 < kept < 2500


def test_temperatures_are_matched_with_the_web(workspace: Workspace) -> None:
    recipe = a_recipe(workspace.root, rule="all", label="soft", calibrate={"temperature": "matched", "split": "cross"})
    measured = select(recipe, workspace).counts["temperatures"]
    held, web = (read_table(workspace.table(name)).to_pylist() for name in ("calibration", "scores"))
    truth = {row["sample_id"]: row["label"] for row in read_table(workspace.table("samples")).to_pylist()}
    for teacher, drawn_sharper in (("a", 3.0), ("b", 2.0)):
        found = measured[teacher]["image"]
        right = np.mean(
            [CLASSES[r["top_classes"][0]] == truth[r["sample_id"]] for r in held if r["teacher"] == teacher]
        )
        probs = np.array([row["probs"] for row in web if row["teacher"] == teacher], np.float64)
        assert found["right"] == pytest.approx(right, abs=1e-4) and found["web"] == found["samples"] == 3000
        assert found["sure_before"] == pytest.approx(mean_confidence(probs, 1.0), abs=1e-4)
        assert found["sure_after"] == pytest.approx(right, abs=1e-3) and found["sure_before"] > right + 0.05
        # Labels are drawn from what an honest teacher says, on the web as on the target: both ways find that one.
        assert found["T"] == pytest.approx(drawn_sharper, rel=0.15)


def test_what_is_kept_is_as_precise_as_it_was_calibrated_to_be(workspace: Workspace) -> None:
    """The web's queries are drawn as the target's labels are, so its precision is known too."""
    kept = {}
    for target in (0.85, 0.95):
        calibrate = {"temperature": True, "precision": target}
        recipe = a_recipe(workspace.root, name=f"p{target}", rule="teacher", label="teacher", calibrate=calibrate)
        record = select(recipe, workspace)
        queries = {r["sample_id"]: r["query_label"] for r in read_table(workspace.table("samples")).to_pylist()}
        rows = [r for r in read_table(workspace.table(f"decisions-p{target}")).to_pylist() if r["keep"]]
        assert sorted(record.counts["thresholds"]["image"]) == sorted(CLASSES)
        for label in CLASSES:
            right = [queries[row["sample_id"]] == label for row in rows if row["label"] == label]
            assert np.mean(right) == pytest.approx(target, abs=0.05)
        kept[target] = len(rows)
    assert kept[0.95] < kept[0.85]


def test_set_thresholds_of_classes_stand_above_found_ones(workspace: Workspace) -> None:
    calibrate = {
        "precision": 1.0,
        "min_samples": 2000,
    }  # too few of any class, and never right so often: nothing is kept
    recipe = a_recipe(workspace.root, rule="teacher", per_source={"web": 0.0}, calibrate=calibrate)
    assert select(recipe, workspace).counts["kept"] == 0
    recipe = a_recipe(workspace.root, rule="teacher", per_class={"fly": 0.0}, calibrate=calibrate)
    record = select(recipe, workspace)
    rows = read_table(workspace.table("decisions-default")).to_pylist()
    assert record.counts["kept"] > 100 and set(record.counts["thresholds"]["image"].values()) == {"never"}
    assert all(row["label"] is not None for row in rows if row["keep"])


def test_a_quantile_keeps_that_share_of_each_class(workspace: Workspace) -> None:
    classes = workspace.classes()
    settings = Select(rule="agree", threshold=0.9)
    with units(workspace.table("scores"), workspace.table("samples"), classes) as db:
        found = quantile_thresholds(db, settings, 0.25, rows=700)
        assert found and sorted(t.label for t in found) == sorted(CLASSES) and {t.unit for t in found} == {"image"}
        tables = list(decide(db, settings, found=found))
        open_ = list(decide(db, settings.model_copy(update={"threshold": 0.0})))
    for label in CLASSES:
        candidates = sum(row["keep"] and row["label"] == label for t in open_ for row in t.to_pylist())
        kept = sum(row["keep"] and row["label"] == label for t in tables for row in t.to_pylist())
        assert candidates > 400 and kept == int(np.ceil(candidates * 0.25))
    record = select(a_recipe(workspace.root, calibrate={"quantile": 0.25}), workspace)
    assert record.counts["kept"] == sum(row["keep"] for t in tables for row in t.to_pylist())


def test_what_if_is_what_a_selection_keeps_and_the_record_tells_how(workspace: Workspace, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rule": "teacher", "label": "teacher", "threshold": 0.98, "query_evidence": True}
    recipe = a_recipe(
        workspace.root, **settings, calibrate={"temperature": True}, overrides=str(tmp_path / "human.csv")
    )
    (tmp_path / "human.csv").write_text("sample_id,keep\nw00000,no\n")
    record = select(recipe, workspace)
    rows = read_table(workspace.table("decisions-default")).to_pylist()
    sure = [row["sample_id"] for row in rows if row["confidence"] >= 0.98]
    (share,) = what_if(recipe, workspace, [0.98], ["teacher"])
    assert (share.kept, share.of) == (len(sure), 3000) and 500 < share.kept < 2990
    assert {row["sample_id"] for row in rows if row["keep"]} == {*sure} - {"w00000"}
    (entry,) = record.counts["sources"]["web"].values()
    assert (entry["units"], entry["human"], entry["reasons"]["human"]) == (3000, 1, 1)
    ((source, trust),) = record.counts["query_trust"].items()
    assert source == "web (image)" and 0.3 < trust < 1


def teachers_differ(workspace: Workspace, table: str, where: Callable[[dict[str, Any]], bool]) -> None:
    """Teacher `b` finds another class best in some rows of a table."""
    rows = read_table(workspace.table(table)).to_pylist()
    for row in rows:
        if row["teacher"] == "b" and where(row):
            row["probs"] = row["probs"][1:] + row["probs"][:1]
            row["top_classes"] = [(place - 1) % len(CLASSES) for place in row["top_classes"]]
    write_table(workspace.table(table), table_from_rows(rows, SCORES))


def test_a_share_of_what_teachers_agree_on(workspace: Workspace) -> None:
    teachers_differ(workspace, "scores", lambda row: int(row["sample_id"][1:]) % 3 == 0)
    settings: dict[str, Any] = {"rule": "teacher", "label": "teacher", "threshold": 0.0, "unanimous": True}
    agreed = select(a_recipe(workspace.root, **settings), workspace)
    reasons = agreed.counts["sources"]["web"]["image"]["reasons"]
    assert (agreed.counts["kept"], reasons) == (2000, {"teachers_divided": 1000})
    for unanimous, kept in ((True, 2000), (False, 3000)):
        recipe = a_recipe(workspace.root, **settings | {"unanimous": unanimous})
        (share,) = what_if(recipe, workspace, [0.0], ["teacher"])
        assert (share.kept, share.of) == (kept, 3000)
    surest = select(a_recipe(workspace.root, **settings, calibrate={"quantile": 0.25}), workspace)
    assert 500 <= surest.counts["kept"] <= 503, "a quarter of each class, rounded up"


def test_what_if_counts_what_the_rule_keeps_at_a_threshold_that_float32_rounds_down(workspace: Workspace) -> None:
    rows = [row for row in read_table(workspace.table("scores")).to_pylist() if row["teacher"] == "a"]
    for row in rows:
        row["top_probs"][0] = 0.7
    write_table(workspace.table("scores"), table_from_rows(rows, SCORES))
    recipe = a_recipe(workspace.root, rule="teacher", label="teacher", threshold=0.7)
    (share,) = what_if(recipe, workspace, [0.7], ["teacher"])
    assert share.kept == select(recipe, workspace).counts["kept"]


def test_thresholds_are_of_samples_on_which_teachers_agree(workspace: Workspace) -> None:
    truth = {row["sample_id"]: row["label"] for row in read_table(workspace.table("samples")).to_pylist()}

    def right(row: dict[str, Any]) -> bool:
        return CLASSES[row["top_classes"][0]] == truth[row["sample_id"]]

    def thresholds(name: str, unanimous: bool) -> list[float]:
        given = {"rule": "teacher", "calibrate": {"precision": 1.0}, "unanimous": unanimous}
        found = select(a_recipe(workspace.root, name=name, **given), workspace).counts["thresholds"]["image"]
        return [NEVER if value == "never" else value for value in found.values()]

    teachers_differ(workspace, "calibration", lambda row: not right(row))  # wrong only where they differ
    asked, plain = thresholds("asked", True), thresholds("plain", False)
    assert len(asked) == len(CLASSES) and all(a < b - 0.03 for a, b in zip(asked, plain, strict=True)), (asked, plain)
    teachers_differ(workspace, "calibration", right)
    assert thresholds("nowhere", True) == [NEVER] * len(CLASSES), "not `select.threshold`, which would keep nearly all"


def test_off_by_default_and_wrong_settings_are_named(workspace: Workspace, tmp_path: Path) -> None:
    fitted = fit(a_recipe(workspace.root), workspace)
    assert not fitted.temperatures and not fitted.thresholds
    with pytest.raises(ValidationError, match="quantile or precision, not both"):
        Select.model_validate({"calibrate": {"quantile": 0.5, "precision": 0.5}})
    with pytest.raises(ValidationError, match="`all` has no threshold"):
        Select.model_validate({"rule": "all", "calibrate": {"quantile": 0.5}})
    with pytest.raises(ValidationError, match="`all` has no threshold"):
        Select.model_validate({"rule": "all", "calibrate": {"precision": 0.5}})
    for calibrate in ({"temperature": True}, {"temperature": "matched"}, {"precision": 0.5}):
        assert Select.model_validate({"calibrate": calibrate | {"split": "cross"}}).calibrate.crossed
    for calibrate in ({}, {"temperature": 2.0}, {"quantile": 0.5}, {"align": 0.5}):
        assert not Select.model_validate({"calibrate": calibrate | {"split": "cross"}}).calibrate.crossed
    with pytest.raises(ValidationError, match="trained on that split"):
        a_recipe(tmp_path, calibrate={"split": "train"})
    rounds = {"first": {"sources": ["target", "web"]}, "again": {"sources": ["target", "web"], "teacher": "first"}}
    with pytest.raises(ValidationError, match=r"runs\.again\.teacher: students are not trained once more"):
        values = a_recipe(tmp_path, calibrate={"temperature": True, "split": "cross"}).model_dump(mode="json")
        Recipe.model_validate(values | {"runs": rounds})
    with pytest.raises(UserError, match="'swim', which is not in the class list"):
        select(a_recipe(workspace.root, per_class={"swim": 0.5}), workspace)
