"""From class names to a trained student: a site on loopback serves the tennis media as search results."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from loopback_site import Handler, Request, Site, file, page
from typer.testing import CliRunner

from omnisource.cli import app
from omnisource.networks import load_checkpoint
from omnisource.tables import read_table
from omnisource.workspace import Workspace

CLASSES = ["backhand", "forehand", "serve", "smash", "b_slice", "b_volley", "f_volley"]
PER_CLASS = {"images": 8, "clips": 2, "untrimmed": 1}
RECIPE = """
name: chain
data: {data}
classes: [{classes}]
collect:
  allow_private: true
  rate_per_host: 0
  sources:
    - {{name: openverse, endpoint: "{site}/images", limit: {images}}}
    - {{name: commons, endpoint: "{site}/clips", format: clip, limit: {clips}}}
    - {{name: commons, endpoint: "{site}/untrimmed", format: untrimmed, limit: {untrimmed}}}
sources:
  target: {{role: target, path: target.csv, columns: {{group: group}}, test: {{fold: 0}}, max_per_class: 4}}
  images: {{role: web, format: image, layout: collected}}
  clips: {{role: web, format: clip, layout: collected}}
  untrimmed: {{role: web, format: untrimmed, layout: collected}}
dedupe: {{frames: 1}}
teachers:
  image: {{network: {{name: tsn_r18, {small}}}, input: {{frames: 3, {input}}}, epochs: 1, threads: 1}}
  video: {{network: {{name: slowonly_r18, {small}}}, input: {{frames: 4, stride: 2, {input}}}, epochs: 1, threads: 1}}
score: {{window_s: 2.0, hop_s: 4.0}}
select: {{rule: teacher, threshold: 0.0}}
student: {{network: {{name: slowonly_r18, {small}}}, input: {{frames: 4, stride: 2, {input}}}, epochs: 1, threads: 1}}
runs: {{all: {{sources: [target, images, clips, untrimmed]}}}}
seeds: [0]
test: {{clips: 1, crops: 1, bootstrap: 50}}
"""


def listed(folder: Path, name: str) -> dict[str, list[Path]]:
    """Media files by the query that they are filed under, as many as the test wants."""
    found: dict[str, list[Path]] = {name: [] for name in CLASSES}
    for row in csv.DictReader((folder / f"{name}.csv").open()):
        if len(found[row["query"]]) < PER_CLASS[name]:
            found[row["query"]].append(folder / row["path"])
    return found


def serve(site: Site, folder: Path) -> None:
    """A gallery in the form of Openverse and two in that of Commons; the media under addresses that say nothing."""
    media = {name: listed(folder, name) for name in PER_CLASS}

    def results(name: str, query: str) -> list[str]:
        paths = media[name][query.replace(" ", "_")]
        for path in paths:
            site.routes.setdefault(f"/m/{path.name}", media_file(path))
        return [f"{site.url}/m/{path.name}" for path in paths]

    def images(request: Request) -> Any:
        urls = results("images", request.query["q"])
        return {"page_count": 1, "results": [{"url": url, "creator": "c", "license": "by"} for url in urls]}

    def films(name: str) -> Handler:
        def answer(request: Request) -> Any:
            urls = results(name, request.query["gsrsearch"].removeprefix("filetype:video "))
            pages = [{"title": f"File:{i}", "index": i, "imageinfo": [{"url": url}]} for i, url in enumerate(urls)]
            return {"query": {"pages": pages}}

        return page(answer)

    site.routes |= {"/images": page(images), "/clips": films("clips"), "/untrimmed": films("untrimmed")}


def media_file(path: Path) -> Handler:
    return file(path.read_bytes(), "application/octet-stream")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_class_names_to_a_trained_student(site: Site, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/tennis"
    serve(site, folder)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        RECIPE.format(
            data=folder,
            classes=", ".join(CLASSES),
            site=site.url,
            small="options: {base_width: 8}",
            input="short_side: 36, size: 32",
            **PER_CLASS,
        )
    )
    place = ["--workspace", str(tmp_path / "work")]
    collected = CliRunner().invoke(app, ["collect", str(recipe), *place], catch_exceptions=False)
    assert collected.exit_code == 0, collected.output
    workspace = Workspace(tmp_path / "work")
    rows = read_table(workspace.table("collected")).to_pylist()
    assert {row["source"] for row in rows} == set(PER_CLASS)
    assert {row["query_label"] for row in rows if row["source"] == "images"} == set(CLASSES)

    ran = CliRunner().invoke(app, ["run", str(recipe), *place], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    decided = {row["sample_id"] for row in read_table(workspace.table("decisions-default")).to_pylist() if row["keep"]}
    assert decided <= {row["sample_id"] for row in rows} and decided
    units = json.loads((workspace.run_dir("all-0") / "run.json").read_text())["identity"]["units"]["sources"]
    assert all(units[name] > 0 for name in ("target", *PER_CLASS))
    network, meta = load_checkpoint(workspace.run_dir("all-0") / "last.safetensors")
    assert set(meta.classes) == set(CLASSES) and not network.spatial

    author = CliRunner().invoke(app, ["forget", "--author", "c", *place], catch_exceptions=False)
    assert author.exit_code == 0 and "all-0" in author.output
