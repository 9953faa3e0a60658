"""The report counts what the tables hold, scores the filters against the truth, and stands on its own."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from omnisource.errors import UserError
from omnisource.evaluate import left_out, write_predictions
from omnisource.evaluate.test import test_basis as basis_of_test
from omnisource.ingest import ingest
from omnisource.recipe import Recipe, Truth
from omnisource.report import Story, read_truth, write_report
from omnisource.report.charts import MOST_CLASSES, confusion, curves, most_changed
from omnisource.tables import DECISIONS, DUPLICATES, PREDICTIONS, PROBE, read_table, table_from_rows, write_table
from omnisource.train import student_basis
from omnisource.workspace import Basis, Workspace, open_workspace

CLASSES = ["jump", "wave"]
RUNS = ("target-only", "all")
# file -> (truth, near_duplicate_of, exact_duplicate_of, broken), fate
WEB = {
    "jump/good.jpg": ("jump", "", "", ""),
    "jump/wrong.jpg": ("wave", "", "", ""),
    "jump/missed.jpg": ("jump", "", "", ""),
    "wave/copy.jpg": ("wave", "", "wave/first.jpg", ""),
    "wave/first.jpg": ("wave", "", "", ""),
    "wave/leak.jpg": ("wave", "target/wave/0.jpg", "", ""),
    "wave/<b>&.jpg": ("off-topic", "", "", ""),
    "wave/broken.jpg": ("", "", "", "truncated"),
}


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((90, 120, 3), shade, np.uint8)).save(path)


def recipe_of(folder: Path) -> Recipe:
    network = {"network": {"name": "slowonly_r18"}}
    sources = {
        "target": {"role": "target", "format": "image", "path": "target", "test_share": 0.5},
        "photos": {"role": "web", "format": "image", "path": "photos"},
    }
    return Recipe.model_validate(
        {
            "name": "seen",
            "data": folder,
            "sources": sources,
            "teachers": {"image": network, "video": network},
            "student": network,
            "seeds": [0, 1],
            "truth": {"files": ["truth.csv"]},
        }
    )


def curated(folder: Path, workspace: Workspace) -> Recipe:
    for label in CLASSES:
        for n in range(4):
            picture(folder / "target" / label / f"{n}.jpg", 10 * n)
    for n, name in enumerate(WEB):
        picture(folder / "photos" / name, 20 * n)
    (folder / "photos/wave/broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with (folder / "truth.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "truth", "near_duplicate_of", "exact_duplicate_of", "broken"])
        writer.writerows([f"photos/{name}", *truth] for name, truth in WEB.items())
    recipe = recipe_of(folder)
    ingest(recipe, workspace)
    samples = read_table(workspace.table("samples")).to_pylist()
    ids = {Path(row["uri"]).name: row["sample_id"] for row in samples if row["role"] == "web"}
    broken = ids["broken.jpg"]
    probed = [
        {"sample_id": row["sample_id"], "status": "dropped", "reason": "undecodable"}
        if row["sample_id"] == broken
        else {"sample_id": row["sample_id"], "status": "ok"}
        for row in samples
    ]
    write_table(workspace.table("probe"), table_from_rows(probed, PROBE))
    # The flagged copy stays and its twin goes: that counts as found.
    twins = {"first.jpg": ("duplicate_exact", "copy.jpg"), "leak.jpg": ("near_test", "good.jpg")}
    duplicates = [
        {"sample_id": i, "status": "dropped", "reason": twins[n][0], "rule": "sha256", "twin_id": ids[twins[n][1]]}
        if n in twins
        else {"sample_id": i, "status": "ok"}
        for n, i in ids.items()
        if i != broken
    ]
    write_table(workspace.table("duplicates"), table_from_rows(duplicates, DUPLICATES))
    kept = {"good.jpg": "jump", "wrong.jpg": "jump", "copy.jpg": "wave"}
    base: dict[str, Any] = {"source": "photos", "unit": "image", "negative": False, "decided_by": "rule"}
    decisions = [
        {**base, "sample_id": ids[name], "keep": name in kept, "label": kept.get(name), "confidence": 0.75}
        | ({} if name in kept else {"reason": "below_threshold"})
        for name in ("good.jpg", "wrong.jpg", "missed.jpg", "copy.jpg", "<b>&.jpg")
    ]
    write_table(workspace.table("decisions-default"), table_from_rows(decisions, DECISIONS))
    return recipe


def put_to_test(workspace: Workspace, recipe: Recipe) -> None:
    samples = [row for row in read_table(workspace.table("samples")).to_pylist() if row["split"] == "test"]
    for run, hits in zip(RUNS, ((2, 3), (4, 4)), strict=True):
        for seed, right in zip(recipe.seeds, hits, strict=True):
            rows = []
            for n, row in enumerate(samples):
                label = CLASSES.index(row["label"])
                best = label if n < right else 1 - label
                probs = [0.9, 0.1] if best == 0 else [0.1, 0.9]
                common = {"sample_id": row["sample_id"], "label": row["label"], "predicted": CLASSES[best]}
                rows.append({**common, "view": -1, "probs": probs, "status": "ok"})
            table: pa.Table = table_from_rows(rows, PREDICTIONS)
            write_predictions(workspace.table(f"predictions-{run}-{seed}"), table, CLASSES)
            log = workspace.run_dir(f"{run}-{seed}") / "log.jsonl"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text('{"step": 1, "epoch": 0.5, "loss": 0.7}\n{"step": 2, "epoch": 1.0, "loss": 0.4}\n{"ste')
    for stage, settings in (
        ("probe", {}),
        ("camera", {}),
        ("dedupe", recipe.dedupe.model_dump(mode="json")),
        ("score", recipe.score.model_dump(mode="json")),
        ("select", {"select": recipe.select.model_dump(mode="json")}),
    ):
        leave_record(workspace, Basis(stage, settings, []))
    for run in RUNS:
        for seed in recipe.seeds:
            leave_records(workspace, recipe, run, seed)


def leave_records(workspace: Workspace, recipe: Recipe, run: str, seed: int) -> None:
    """What the training and the test of a student leave."""
    leave_record(workspace, student_basis(recipe, workspace, run, seed))
    leave_record(workspace, basis_of_test(f"{run}-{seed}", recipe.student_of(run), recipe.test))


def leave_record(workspace: Workspace, basis: Basis, **counts: int) -> None:
    workspace.run_stage(basis.stage, settings=basis.settings, after=basis.after, outputs=[], work=lambda _: counts)


def test_the_page_says_what_is_tested_and_trained_on(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "ws") as workspace:
        recipe = curated(tmp_path, workspace)
        leave_record(workspace, Basis("probe", {}, []), in_two_splits=3, copies_in_two_splits=2)
        put_to_test(workspace, recipe)
        write_report(recipe, workspace)
        page = workspace.report_path.read_text()
    assert "3 test or val samples are files that are also trained on, so that part of the accuracies is memory" in page
    assert "2 training clips are copies of test or val clips, encoded anew, so that part of" in page


def test_the_funnel_counts_every_file_once(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "ws") as workspace:
        (funnel,) = Story(curated(tmp_path, workspace), workspace).funnels()
    assert funnel.counts == {"collected": 8, "readable": 7, "not duplicate": 5, "kept": 3}
    assert sum(count for _, _, count in funnel.reasons) == 8 - 3
    assert ("readable", "undecodable", 1) in funnel.reasons
    assert funnel.by_class["jump"] == {"collected": 3, "readable": 3, "not duplicate": 3, "kept": 2}


def test_filters_against_the_truth(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "ws") as workspace:
        scores = Story(curated(tmp_path, workspace), workspace).filter_scores()
    found = {score.filter: (score.precision, score.recall) for score in scores}
    assert found == {
        "broken files": (1.0, 1.0),
        "exact duplicates": (1.0, 1.0),
        "near-duplicates of test clips": (1.0, 1.0),
        "teacher's selection": (2 / 3, 2 / 3),
    }


def test_what_a_selection_should_keep_follows_from_whose_labels_it_takes(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "ws") as workspace:
        recipe = curated(tmp_path, workspace)
        by_teacher = recipe.model_copy(update={"select": recipe.select.model_copy(update={"label": "teacher"})})
        path = workspace.table("decisions-default")
        rows = read_table(path).to_pylist()
        for row in rows:
            row |= {"keep": True, "label": "wave", "reason": None}  # right of wrong.jpg, of which the query says jump
        write_table(path, table_from_rows(rows, DECISIONS))
        (score,) = Story(by_teacher, workspace).selection_scores()
    assert (score.right, score.chosen, score.wanted) == (2, 5, 4)  # all but <b>&.jpg show a class


def test_a_filter_that_the_truth_says_nothing_of_is_not_judged(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "ws") as workspace:
        recipe = curated(tmp_path, workspace)
        with (tmp_path / "truth.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["path", "truth"], *([f"photos/{name}", kind[0]] for name, kind in WEB.items())]
            )
        scores = Story(recipe, workspace).filter_scores()
    assert [score.filter for score in scores] == ["teacher's selection"]


class _Outside(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value and not value.startswith(("data:", "#")):
                self.found.append(value)
            self.images += name == "src" and tag == "img"


def test_the_page_stands_on_its_own(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "ws") as workspace:
        recipe = curated(tmp_path, workspace)
        with pytest.raises(UserError, match="nothing tested yet"):
            write_report(recipe, workspace)
        put_to_test(workspace, recipe)
        assert write_report(recipe, workspace).fresh
        assert not write_report(recipe, workspace).fresh
        page = workspace.report_path.read_text()
    outside = _Outside()
    outside.feed(re.sub(r"<script.*?</script>", "", page, flags=re.S))
    assert outside.found == []
    assert outside.images == 7 + 2  # the broken file has nothing to show; two duplicates stand beside their twins
    assert "62.5 %" in page and "100.0 %" in page and "+37.5" in page
    assert "<b>&.jpg" not in page
    assert "top-5" not in page  # of two classes it says nothing
    assert "Not tested yet" not in page
    assert "is memory" not in page
    for there in re.findall(r'href="#(\w+)"', page):
        assert f'id="{there}"' in page


def test_what_is_trained_before_the_web_is_curated_has_a_report(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "ws") as workspace:
        recipe = curated(tmp_path, workspace)
        put_to_test(workspace, recipe)
        workspace.table("decisions-default").unlink()
        for stage in ("dedupe", "score", "select"):
            (workspace.root / "stages" / f"{stage}.json").unlink()
        write_report(recipe, workspace)
        page = workspace.report_path.read_text()
    assert "Does the web help?" in page and "From the web to the training" not in page


def test_results_of_another_recipe_are_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnisource.report.stage.galleries", lambda story, each: [])

    def changed(**changes: Any) -> Recipe:
        values = recipe.model_dump(mode="json")
        for section, settings in changes.items():
            values[section] |= settings
        return Recipe.model_validate(values)

    with open_workspace(tmp_path / "ws") as workspace:
        recipe = curated(tmp_path, workspace)
        put_to_test(workspace, recipe)
        assert left_out(recipe, workspace) == {}
        # Another selection was never made: what trained on the web is not of it, the target alone is.
        found = left_out(changed(select={"threshold": 0.5}), workspace)
        assert set(found) == {"all-0", "all-1"}
        assert found["all-0"] == "select ran with other settings (select.threshold: 0.3 -> 0.5)"
        assert set(left_out(changed(test={"clips": 1}), workspace)) == {f"{run}-{n}" for run in RUNS for n in (0, 1)}
        # A longer training, of which one student is there.
        longer = changed(student={"epochs": 50.0})
        with pytest.raises(UserError, match=r"nothing tested yet .*epochs: 30.0 -> 50.0"):
            write_report(longer, workspace)
        leave_records(workspace, longer, "target-only", 1)
        workspace.table("predictions-all-0").unlink()  # and one that is not there yet
        assert write_report(longer, workspace).counts == {"runs": 1, "left_out": 2}
        page = workspace.report_path.read_text()
        assert "Not tested yet: all (seed 0)." in page
        assert 'href="#examples"' not in page  # a section that is not there
        assert "all-1: train-all-1 ran with other settings (training.epochs: 30.0 -&gt; 50.0)" in page
        assert "75.0 %" in page and "62.5 %" not in page
        # Trained again since it was tested.
        (workspace.root / "stages" / "train-target-only-1.json").unlink()
        leave_record(workspace, student_basis(longer, workspace, "target-only", 1))
        assert "a stage before test-target-only-1 was done again" in left_out(longer, workspace)["target-only-1"]


def test_another_truth_makes_another_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnisource.report.stage.render", lambda *given: "")
    with open_workspace(tmp_path / "ws") as workspace:
        recipe = curated(tmp_path, workspace)
        put_to_test(workspace, recipe)
        assert write_report(recipe, workspace).fresh
        truth = tmp_path / "truth.csv"
        truth.write_text(truth.read_text().replace("photos/jump/good.jpg,jump", "photos/jump/good.jpg,wave"))
        assert write_report(recipe, workspace).fresh


def test_a_chart_shows_names_and_does_not_obey_them() -> None:
    names = ["<a href='https://x'>b</a>", "2020-01-01", *(f"{'x' * 80}{n}" for n in range(2)), "\u202eodd"]
    html = confusion(names, [[1] * 5] * 5, "title")
    assert "&lt;a href" in html
    assert "x" * 41 not in html
    assert "\\\\u202eodd" in html  # an escape, in JSON
    (shown,) = re.findall(r'"x":(\[.*?\])', html)
    assert len(set(json.loads(shown))) == 5
    assert html.count('"type":"category"') == 2  # a class that is a date is no date


def test_a_chart_of_many_classes_names_those_that_changed_most() -> None:
    accuracies = [[0.5] * 400, [0.5] * 400]
    accuracies[1][7], accuracies[1][300] = 1.0, 0.0
    shown = most_changed(accuracies)
    assert len(shown) == MOST_CLASSES and {7, 300} <= set(shown) and shown == sorted(shown)
    assert 7 not in most_changed([[0.1] * 7 + [None] + [0.2] * 60])
    (names,) = re.findall(
        r'"ticktext":(\["class.*?\])', confusion([f"class {n}" for n in range(100)], [[1] * 100] * 100, "")
    )
    assert len(json.loads(names)) == 34  # every third


def test_a_long_training_is_drawn_by_few_points(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"epoch": {n}, "loss": 0.5}}\n' for n in range(20_001)))
    (epochs,) = re.findall(r'"x":(\[.*?\])', curves([("run", log)]))
    found = json.loads(epochs)
    assert len(found) <= 501 and found[-1] == 20_000


def test_the_truth_of_a_file_is_that_of_all_its_pieces(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("path,truth\nfilm.mp4,jump\n")
    (tmp_path / "segments.csv").write_text("path,start_s,end_s,label\nfilm.mp4,0,4,jump\n")
    recipe = recipe_of(tmp_path)
    pieces = [{"uri": str(tmp_path / "film.mp4"), "sample_id": name} for name in ("first", "second")]
    truth = Truth(files=["truth.csv"], segments="segments.csv")
    known = read_truth(recipe, truth, pieces)
    assert set(known.files) == set(known.segments) == {"first", "second"}


def test_seconds_that_two_segments_of_a_class_name_count_once(tmp_path: Path) -> None:
    lines = ["path,start_s,end_s,label", "film.mp4,0,2,jump", "film.mp4,1,2.5,jump", "film.mp4,6,9,wave"]
    (tmp_path / "segments.csv").write_text("\n".join(lines) + "\n")
    samples = [{"uri": str(tmp_path / "film.mp4"), "sample_id": "film"}]
    known = read_truth(recipe_of(tmp_path), Truth(segments="segments.csv"), samples)
    assert known.shown("film", {"unit": "window", "start_s": 0.0, "end_s": 10.0}) == {"wave"}
    assert known.shown("film", {"unit": "window", "start_s": 0.0, "end_s": 8.0}) == {"jump"}
