"""The report counts what the tables hold, scores the filters against the truth, and stands on its own."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from omnisource.errors import UserError
from omnisource.evaluate import write_predictions
from omnisource.ingest import ingest
from omnisource.recipe import Recipe
from omnisource.report import Story, write_report
from omnisource.tables import DECISIONS, DUPLICATES, PREDICTIONS, PROBE, read_table, table_from_rows, write_table
from omnisource.workspace import Workspace, open_workspace

CLASSES = ["jump", "wave"]
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
    for run, hits in (("target-only", (2, 3)), ("all", (4, 4))):
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
