"""A cell is one training: a track's fold, a variant, a seed. Cells are independent and kept as they finish."""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from omnisource.curate import dedupe, probe, score, select
from omnisource.errors import UserError
from omnisource.evaluate import crop_size, view_request
from omnisource.evaluate.test import test_samples
from omnisource.evidence.tracks import Track
from omnisource.evidence.variants import Variant
from omnisource.infer import infer
from omnisource.ingest import ingest
from omnisource.networks import Network, load_checkpoint
from omnisource.progress import console
from omnisource.recipe import Recipe
from omnisource.recipe.load import check, set_key
from omnisource.report.numbers import Story
from omnisource.train import train_student, train_teacher
from omnisource.workspace import Workspace, fingerprint, open_workspace

_SELECTION = "teacher's selection"  # its name among the report's filters


@dataclass(frozen=True)
class Cell:
    """One finished training and what it measured."""

    track: str
    fold: int
    variant: str
    seed: int
    key: str  # of everything that decides it
    top1: float
    mean_class: float
    tested: int
    target_clips_seen: int
    web_units: dict[str, int]  # kept, of each web source
    precision: dict[str, float]  # of the kept units, by source: share whose label is right, where the truth is known
    recall: dict[str, float]


def run_cells(
    track: Track, data: Path, root: Path, variants: Sequence[Variant], seeds: Sequence[int], folds: Sequence[int]
) -> list[Cell]:
    """Trains and tests every cell that `root` does not hold yet.

    Each fold has a workspace in which the ordinary stages ran: ingest, probe, dedupe, the teachers, score. A cell adds
    a selection and a student, is tested, and leaves nothing but its numbers.
    """
    found: list[Cell] = []
    total = len(folds) * len(variants) * len(seeds)
    for fold in folds:
        place = root / track.name / f"fold-{fold}"
        base = track.recipe(_folder(data, track), place, fold)
        kept = _Kept(place / "cells.jsonl")
        with open_workspace(place / "workspace") as workspace:
            _share_features(root / track.name, workspace)
            bench: _Bench | None = None
            for variant in variants:
                recipe = recipe_of(base, variant)
                for seed in seeds:
                    key = fingerprint({"recipe": recipe.model_dump(mode="json"), "seed": seed})
                    cell = kept.get(key)
                    if cell is None:
                        bench = bench or _Bench(base, workspace)
                        cell = bench.measure(track, fold, variant, recipe, seed, key)
                        kept.add(cell)
                    found.append(replace(cell, variant=variant.name))
                shown = ", ".join(f"{100 * cell.top1:.1f}" for cell in found[-len(seeds) :])
                console.print(f"{len(found)}/{total}  {track.name}  fold {fold}  {variant.name}: {shown}", markup=False)
    return found


def recipe_of(base: Recipe, variant: Variant) -> Recipe:
    """The recipe of a variant: one run called `cell`, and a selection named after its settings."""
    values = base.model_dump(mode="json")
    values["runs"] = {"cell": {"sources": [*base.target_sources, *variant.sources]}}
    for key, value in variant.set.items():
        set_key(values, key, value, f"variant {variant.name}")
    recipe = check(Recipe, values, {}, f"variant {variant.name}")
    name = "s" + fingerprint(recipe.select.model_dump(mode="json"))[:12]
    return recipe.model_copy(update={"select": recipe.select.model_copy(update={"name": name})})


class _Bench:
    """The workspace of a fold, ready for cells."""

    def __init__(self, base: Recipe, workspace: Workspace) -> None:
        self.workspace = workspace
        ingest(base, workspace)
        probe(base, workspace)
        dedupe(base, workspace)
        for name in base.teachers:
            train_teacher(base, workspace, name)
        score(base, workspace)
        self._features: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def measure(self, track: Track, fold: int, variant: Variant, recipe: Recipe, seed: int, key: str) -> Cell:
        workspace, web = self.workspace, list(variant.sources)
        if web:
            select(recipe, workspace)
        story = Story(recipe, workspace) if web else None
        filters = {row.source: row for row in story.filter_scores() if row.filter == _SELECTION} if story else {}

        def shares(source: str) -> tuple[float | None, float | None]:
            found = filters.get(source)
            return (found.precision, found.recall) if found else (None, None)

        counts = train_student(recipe, workspace, "cell", seed).counts
        folder = workspace.run_dir(f"cell-{seed}")
        network, _ = load_checkpoint(folder / "last.safetensors")
        top1, mean_class, tested = self._test(recipe, network)
        shutil.rmtree(folder)
        return Cell(
            track=track.name,
            fold=fold,
            variant=variant.name,
            seed=seed,
            key=key,
            top1=top1,
            mean_class=mean_class,
            tested=tested,
            target_clips_seen=counts["steps"] * counts["batch"]["target"],
            web_units={name: counts["units"][name] for name in web},
            precision={name: share for name in web if (share := shares(name)[0]) is not None},
            recall={name: share for name in web if (share := shares(name)[1]) is not None},
        )

    def _test(self, recipe: Recipe, network: Network) -> tuple[float, float, int]:
        """Top-1 and mean-class accuracy by the views of `omnisource test`; the trunk looks at them once a fold."""
        features, labels = self._views(recipe, network)
        with torch.no_grad():
            probs = network.head(features).softmax(2).mean(1)  # over crops, as in `omnisource test`
            right = probs.argmax(1) == labels
        each = [float(right[labels == label].float().mean()) for label in sorted(set(labels.tolist()))]
        return float(right.float().mean()), float(np.mean(each)), len(labels)

    def _views(self, recipe: Recipe, network: Network) -> tuple[torch.Tensor, torch.Tensor]:
        """What the classifier sees of the test samples, (N, crops, D), and their classes (N,)."""
        given, views = recipe.student.input, recipe.test
        if recipe.student.trunk_views is None or views.average != "prob":
            raise UserError("evidence: cells need a fixed trunk (student.trunk_views) and test.average: prob")
        key = fingerprint(
            {
                "width": network.feature_dim,
                "input": given.model_dump(mode="json"),
                "test": views.model_dump(mode="json"),
            }
        )
        if key not in self._features:
            classes = self.workspace.classes()
            listed, _ = test_samples(self.workspace, views.split)
            listed = [row for row in listed if row["facts"] and row["facts"]["status"] == "ok"]
            requests = (view_request(row, row["facts"], given, views, True) for row in listed)
            truth = {row["sample_id"]: classes.index(row["label"]) for row in listed}
            rows, labels = [], []
            _, meta = load_checkpoint(self.workspace.run_dir("teacher-video") / "last.safetensors")
            for result in infer(
                network, meta, requests, size=crop_size(given, views), short_side=given.short_side, features=True
            ):
                if result.features is not None:
                    rows.append(result.features)
                    labels.append(truth[str(result.request.key)])
            self._features[key] = torch.tensor(np.stack(rows)), torch.tensor(labels)
        return self._features[key]


class _Kept:
    """Finished cells, one a line."""

    def __init__(self, path: Path) -> None:
        self._path, self._cells = path, dict[str, Cell]()
        if path.exists():
            for line in path.read_text().splitlines():
                with suppress(ValueError, TypeError):  # the last line of a killed run may be cut off
                    cell = Cell(**json.loads(line))
                    self._cells[cell.key] = cell

    def get(self, key: str) -> Cell | None:
        return self._cells.get(key)

    def add(self, cell: Cell) -> None:
        self._cells[cell.key] = cell
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(cell)) + "\n")


def _share_features(root: Path, workspace: Workspace) -> None:
    """Folds see the same files, so they share what the trunk says of them."""
    shared, mine = root / "features", workspace.root / "runs" / ".features"
    shared.mkdir(parents=True, exist_ok=True)
    if not mine.exists():
        mine.symlink_to(shared.resolve(), target_is_directory=True)


def _folder(data: Path, track: Track) -> Path:
    folder = (data / track.folder).resolve()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data names the folder that holds {track.folder}/")
    return folder
