"""One's own recipe as a track: its splits, its variants, and the command that measures them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import film, table
from PIL import Image
from typer.testing import CliRunner

from omnisource.cli import app
from omnisource.errors import UserError
from omnisource.evidence import Cell, Variant, own_track, own_variants, summarise, variants_of, write_results
from omnisource.evidence.cells import recipe_of
from omnisource.evidence.sheet import cautions, write_sheet
from omnisource.recipe import Recipe, load_recipe
from omnisource.workspace import Workspace

LABELS = ("jump", "wave")
NETWORK = """\
network: {name: tsn_efficientnet_lite0, init: {imagenet: package}, options: {consensus: mean-std-slope}}
input: {frames: 2, short_side: 40, size: 32}
epochs: 3
batch: {target: 4, web_ratio: 1.0}
optimiser: {kind: adamw, lr: 0.001, trunk_lr_scale: 0}
trunk_views: 2
snippets: {kind: window}
workers: 0
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target of two classes in four folds, images and clips."""
    root = tmp_path_factory.mktemp("data")
    rows = []
    for label, name in enumerate(LABELS):
        for number in range(8):
            film(root / f"target/{name}/{number}.mp4", label, 100 * label + number)
            rows.append({"path": f"target/{name}/{number}.mp4", "label": name, "fold": number % 4, "film": number % 4})
        for number in range(3):
            film(root / f"clips/{name}/{number}.mp4", label, 700 + 10 * label + number)
            picture = np.random.default_rng(500 + 10 * label + number).integers(0, 90, (48, 64, 3), np.uint8)
            picture[..., label] += 120
            (root / f"images/{name}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / f"images/{name}/{number}.png")
    table(root / "target.csv", rows)
    return root


def written(folder: Path, data: Path, target: str, more: str = "") -> Path:
    """A recipe with the selection that `omnisource init` writes."""
    indented = "".join(f"    {line}\n" for line in NETWORK.splitlines())
    path = folder / "own.yaml"
    path.write_text(
        f"""\
name: own
data: {data}
sources:
  target: {{role: target, {target}}}
  images: {{role: web, format: image, path: images}}
  clips: {{role: web, path: clips}}
teachers:
  image:
{indented}  video:
{indented}select: {{rule: all, label: soft, query_evidence: true, calibrate: {{temperature: 3}}}}
student:
{indented}    confidence_weighted: true
test: {{clips: 1, crops: 1}}
dedupe: {{against_test: false}}
{more}"""
    )
    return path


def recipe_with(data: Path, **target: Any) -> Recipe:
    network = {"network": {"name": "tsn_r18"}}
    return Recipe.model_validate(
        {
            "name": "own",
            "data": data,
            "sources": {
                "target": {"role": "target", "path": "target.csv", **target},
                "images": {"role": "web", "format": "image", "path": "images"},
            },
            "teachers": {"image": network, "video": network},
            "student": network,
        }
    )


def splits(recipe: Recipe, tmp_path: Path) -> list[dict[str, Any]]:
    """What the target says in every fold of the track, beyond its place."""
    track = own_track(recipe, Workspace(tmp_path))
    found = [track.recipe(recipe.data, tmp_path / "look", fold).sources["target"] for fold in track.folds]
    return [one.model_dump(exclude_defaults=True, exclude={"role", "path", "columns"}) for one in found]


def test_a_share_is_tested_on_part_by_part(data: Path, tmp_path: Path) -> None:
    found = splits(recipe_with(data, test_share=0.3, test_part=1), tmp_path)
    assert [one.get("test_part", 0) for one in found] == [1, 2, 0], "the recipe's own part first"
    assert splits(recipe_with(data, test_share=0.6), tmp_path) == [{"test_share": 0.6}]


def test_every_fold_takes_its_turn(data: Path, tmp_path: Path) -> None:
    found = splits(recipe_with(data, test={"fold": 2}, val={"fold": 3}, exclude={"fold": [0]}), tmp_path)
    assert [(one["test"]["fold"], one["val"]["fold"], one["exclude"]["fold"]) for one in found] == [
        ("2", "3", ["0"]),
        ("3", "0", ["1"]),
        ("0", "1", ["2"]),
        ("1", "2", ["3"]),
    ]
    # The list calls it otherwise; other conditions stay.
    named = recipe_with(data, columns={"fold": "film"}, where={"label": "jump"}, test={"film": 1})
    assert [one["test"]["film"] for one in splits(named, tmp_path)] == ["1", "2", "3", "0"]
    assert all(one["where"] == {"label": "jump"} for one in splits(named, tmp_path))
    # Web data that are of another fold than what is tested on stay so.
    shared = recipe_with(data, exclude={"fold": [2, 3]}, test={"fold": 0})
    web = shared.sources["target"].model_copy(
        update={"role": "web", "exclude": {}, "test": {}, "where": {"fold": [2, 3]}}
    )
    track = own_track(shared.model_copy(update={"sources": shared.sources | {"images": web}}), Workspace(tmp_path))
    found = [track.recipe(data, tmp_path / "look", fold).sources for fold in track.folds]
    assert [(one["target"].test["fold"], one["images"].where["fold"]) for one in found] == [
        ("0", ["2", "3"]),
        ("1", ["3", "0"]),
        ("2", ["0", "1"]),
        ("3", ["1", "2"]),
    ]
    for condition in ({"fold": {"below": 2}}, {"fold": 7}, {"film": 0}, {"label": "jump"}):
        assert len(splits(recipe_with(data, test=condition), tmp_path)) == 1, "nothing takes turns here"


def test_what_cannot_be_measured(data: Path, tmp_path: Path) -> None:
    recipe = recipe_with(data, test={"fold": 0})
    values = recipe.model_dump(mode="json")
    values["student"]["input"]["modality"] = "flow"
    with pytest.raises(UserError, match="optical flow trains on the target alone"):
        own_track(Recipe.model_validate(values), Workspace(tmp_path))
    values = recipe.model_dump(mode="json")
    values["sources"]["images"] = {"role": "web", "format": "image", "layout": "collected"}
    with pytest.raises(UserError, match="nothing was collected yet; run `omnisource collect`"):
        own_track(Recipe.model_validate(values), Workspace(tmp_path))


def test_a_recipe_that_needs_its_runs_is_refused_in_a_line(data: Path, tmp_path: Path) -> None:
    values = recipe_with(data, test={"fold": 0}).model_dump(mode="json")
    web = {"sources": ["target", "images"]}
    values |= {"seeds": [0, 1], "runs": {"all": web, "again": web | {"teacher": "all"}}}
    values["select"]["unanimous"] = True
    track = own_track(Recipe.model_validate(values), Workspace(tmp_path))
    with pytest.raises(UserError, match=r"^own, fold 0: select.unanimous: no unit has several teachers"):
        track.recipe(data, tmp_path / "look", 0)


def test_variants_of_a_recipe_beyond_the_paper(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = load_recipe(written(tmp_path, data, "path: target.csv, test: {fold: 0}"))
    every = variants_of(base)
    variants = {variant.name: variant for variant in own_variants(base, every)}
    evidence = "query as evidence, soft, all, weighted by confidence"
    assert evidence in {variant.name for variant in every} and evidence not in variants, "that is `all`"
    consistent = next(name for name in variants if name.startswith(evidence) and "consistency" in name)
    assert variants[consistent].against == "all", "what it was compared with is called so here"
    assert all(variant.against in variants for variant in variants.values())
    plain = recipe_of(base, variants["the paper's filter"])
    assert (plain.select.rule, plain.select.label, plain.select.threshold) == ("agree", "query", 0.3)
    assert not plain.select.query_evidence and not plain.student.confidence_weighted
    for name, variant in variants.items():
        recipe = recipe_of(base, variant)
        mine = name.startswith(("agree", "unfiltered", "teacher's own", "soft labels", "query class's"))
        assert not (mine and recipe.select.query_evidence), name
    assert recipe_of(base, variants["unfiltered"]).select.label == "query"
    # People's decisions hold whatever the filter; what a recipe forbids is left out and named.
    decided = base.model_copy(update={"select": base.select.model_copy(update={"overrides": "mine.csv"})})
    assert {recipe_of(decided, variant).select.overrides for variant in variants_of(decided)} == {"mine.csv"}
    wrong = Variant("wrong", "q", (), {"student.epochs": -1})
    assert own_variants(base, [*variants_of(base, few=True), wrong]) == own_variants(base, variants_of(base, few=True))
    assert "left out: variant wrong: 'student.epochs'" in " ".join(capsys.readouterr().err.split())


def test_ablate(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, data, "path: target, test_share: 0.25", "seeds: [0, 3]\n")
    command = ["ablate", str(path), "--folds", "2", "--only", "all", "--only", "the paper's filter"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0 and "3 rows x 2 splits x 2 seeds: 12 trainings" in done.output
    root = tmp_path / "workspaces/own/ablation"
    facts = json.loads((root / "effect-own.json").read_text())
    assert [row["variant"] for row in facts["rows"]] == ["target-only", "all", "the paper's filter"]
    assert all(row["folds"] == 2 and row["seeds"] == 2 and row["tested"] == 8 for row in facts["rows"])
    assert facts["command"].startswith("omnisource ablate own.yaml --folds 2 --only all")
    text = (root / "index.html").read_text()
    assert "own: what helps here?" in text and "<svg" in text and "the paper&#39;s filter" in text
    # Again, also in another place, nothing is trained; a clip more, and everything is measured anew.
    cells = (root / "own/fold-0/cells.jsonl").read_text()
    (tmp_path / "workspaces").rename(tmp_path / "moved")
    root = tmp_path / "moved/own/ablation"
    command += ["--workspace", "moved/own"]
    assert "3 rows x" in CliRunner().invoke(app, [*command, "--set", "seeds=[3,0]"], catch_exceptions=False).output
    assert (root / "own/fold-0/workspace/runs/.features").resolve().parent == root
    assert (root / "own/fold-0/cells.jsonl").read_text() == cells
    more = data / "clips/jump/more.mp4"
    film(more, 0, 7777)
    assert CliRunner().invoke(app, [*command, "--folds", "1"], catch_exceptions=False).exit_code == 0
    more.unlink()
    lines = (root / "own/fold-0/cells.jsonl").read_text().splitlines()
    assert len(lines) == 2 * len(cells.splitlines())
    assert json.loads(lines[-1])["web_units"]["clips"] == json.loads(lines[2])["web_units"]["clips"] + 1
    page = (root / "index.html").read_text()
    assert "There is one split" in page and "Fewer than three trainings" in page


def test_ablate_films_alone(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but films, and a 2D student that takes windows of them: rows of others may take frames."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        film(tmp_path / f"films/{number}.mp4", number % 2, 900 + number)
    path = written(tmp_path, data, "path: target, test_share: 0.5", "score: {window_s: 0.6, hop_s: 0.6}\n")
    text = path.read_text()
    web = text[text.index("  images: {role") : text.index("teachers:")]
    films = f"  films: {{role: web, format: untrimmed, path: {tmp_path}/films, layout: files}}\n"
    path.write_text(text.replace(web, films))
    done = CliRunner().invoke(app, ["ablate", str(path), "--folds", "1", "--only", "all"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "workspaces/own/ablation/effect-own.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["target-only", "all"] and rows[1]["web_units"]["films"] >= 4


def test_ablate_the_target_alone(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, data, "path: target.csv, test: {fold: 0}")
    text = path.read_text()
    head, rest = text[: text.index("  images: {role")], text[text.index("student:\n") :]
    path.write_text(head + rest.replace("    confidence_weighted: true\n", ""))
    done = CliRunner().invoke(app, ["ablate", str(path), "--full", "--folds", "2"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    root = tmp_path / "workspaces/own/ablation"
    facts = json.loads((root / "effect-own.json").read_text())
    rows = facts["rows"]
    named = ["", ", 2x epochs", ", 3x epochs", ", mixup", ", averaged weights (EMA 0.99)", ", label smoothing 0.1"]
    assert [row["variant"] for row in rows] == [f"target-only{name}" for name in named]
    assert rows[1]["target_clips_seen"] == 2 * rows[0]["target_clips_seen"] and rows[0]["tested"] == 8
    page = (root / "index.html").read_text()
    assert "How strong is the target alone?" in page and "kept of each source" not in page


def test_mistakes_show_before_anything_is_trained(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["ablate", str(written(tmp_path, data, "path: target, test_share: 0.25"))]
    for wrong, said in (
        ("student.network.init.imagenet=gone.pth", r"student\.network: .*gone\.pth: no such file"),
        ("student.batch.target=400", r"student.batch.target is 400, but only 12 target samples train; lower it"),
    ):
        with pytest.raises(UserError, match=said):
            CliRunner().invoke(app, [*command, "--set", wrong], catch_exceptions=False)
    assert not list(tmp_path.glob("workspaces/own/ablation/own/fold-*/workspace/tables/quarantine*"))
    assert not list(tmp_path.rglob("probe.json"))


def test_a_share_of_a_target_that_has_its_own_split(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, data, "path: target.csv, test: {film: 1}, test_share: 0.5")
    with pytest.raises(UserError, match=r"splits 0 and 1 are tested on the same samples; .* remove test_share"):
        CliRunner().invoke(app, ["ablate", str(path)], catch_exceptions=False)


def test_a_page_says_what_to_mind(data: Path, tmp_path: Path) -> None:
    variants = [Variant("target-only", "does it help?", ())]
    variants += [Variant(f"row <{number}>", "which?", ("web",)) for number in range(20)]
    cells = []
    for variant in variants:
        for fold in range(3):
            gain = 0.1 + 0.01 * fold if variant.sources else 0.0
            cells.append(Cell("own", fold, variant.name, 0, "", 0.4 + gain, 0.4, 20, 100, {"web": 7}, {"web": 0.5}, {}))
    rows = summarise(cells, variants)
    assert [text for text in cautions(rows) if "chance alone would show about 1" in text and "20 of 20" in text]
    results = write_results(rows, "omnisource ablate own.yaml", tmp_path)
    write_sheet(results, recipe_with(data, test={"fold": 0}), tmp_path / "page/index.html")
    text = (tmp_path / "page/index.html").read_text()
    assert "row &lt;0&gt;" in text and "row <0>" not in text and "web 7 (50%)" in text
    assert '<td class="n good">+11.0</td>' in text and "+8.5 to +13.5" in text
