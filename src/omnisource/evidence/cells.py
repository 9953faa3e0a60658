"""A cell is one training: a track's fold, a variant, a seed. Cells are independent and kept as they finish."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from omnisource.ahead import check_ahead, check_listed
from omnisource.clips import fit_camera_stage
from omnisource.curate import calibrate, dedupe, prepare, probe, score, select
from omnisource.errors import UserError
from omnisource.evidence.features import test_on_features
from omnisource.evidence.key import cell_key, differing
from omnisource.evidence.tracks import Track
from omnisource.evidence.variants import Variant
from omnisource.ingest import COLLECTED, ingest
from omnisource.jobs import side_by_side
from omnisource.pipeline import (
    needs_camera,
    reads_prepared,
    train_all_judges,
    train_and_test,
    train_teachers,
    used_teachers,
)
from omnisource.progress import say
from omnisource.recipe import Recipe, Run
from omnisource.recipe.load import check, set_key
from omnisource.report.numbers import Story
from omnisource.train import train_student
from omnisource.workspace import Workspace, fingerprint, open_workspace

_KINDS = ("window", "positive-negative")


@dataclass(frozen=True)
class Cell:
    """One finished training and what it measured."""

    track: str
    fold: int
    variant: str
    seed: int
    key: str  # of everything that decides it (cell_key)
    top1: float
    mean_class: float
    tested: int
    target_clips_seen: int
    web_units: dict[str, int]  # kept, of each web source
    precision: dict[str, float]  # of the kept units, by source: share whose label is right, where the truth is known
    recall: dict[str, float]


def run_cells(
    track: Track,
    data: Path | None,
    root: Path,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    folds: Sequence[int],
    jobs: int = 1,
) -> list[Cell]:
    """Trains and tests every cell that `root` does not hold yet.

    Each fold has a workspace in which the ordinary stages ran: ingest, probe, dedupe, the teachers, score. A cell adds
    a selection and a student, is tested, and leaves nothing but its numbers.

    Args:
        data: folder of the real media; drawn worlds are filmed into `root`.
        jobs: trainings side by side, in processes of their own. No figure depends on it.
    """
    found: list[Cell] = []
    total = len(folds) * len(variants) * len(seeds)
    known = {} if track.lasting else _data_of(track, data, root, folds)
    for fold in folds:
        place = root / track.name / f"fold-{fold}"
        media = track.media(data, root, fold)
        base = track.recipe(media, place, fold)
        kept = _Kept(place / "cells.jsonl")
        with open_workspace(place / "workspace") as workspace:
            _share(root / f"features-{track.folder or track.name}", workspace.root / "runs" / ".features")
            _share(root / f"media-{track.folder or track.name}", workspace.root / "media")
            planned = [
                work for variant in variants for work in _works(track, fold, base, variant, seeds, known.get(fold))
            ]
            missing = {work.key: work for work in planned if work.key not in kept}
            if missing:
                track.provide(media, fold, jobs)
                _make_ready(base, workspace, jobs)
            todo = list(_ready(missing.values(), base, workspace, jobs))
            for number, (_, cell) in enumerate(side_by_side(_measure, todo, min(jobs, len(todo))), 1):
                kept.add(cell)
                told = f"{cell.variant}, seed {cell.seed}: {100 * cell.top1:.1f}"
                say(f"{track.name}  fold {fold}  {number}/{len(todo)}  {told}")
        found += [replace(kept[work.key], variant=work.variant) for work in planned]
        say(f"{track.name}: {len(found)}/{total} cells")
    return found


def recipe_of(base: Recipe, variant: Variant) -> Recipe:
    """The recipe of a variant: one run called `cell`, and a selection named after its settings."""
    values = base.model_dump(mode="json")
    values["runs"] = {"cell": {"sources": [*base.target_sources, *variant.sources]}}
    for key, value in variant.set.items():
        set_key(values, key, deepcopy(value), f"variant {variant.name}")  # later keys may set something within
    recipe = check(Recipe, values, {}, f"variant {variant.name}")
    name = "s" + fingerprint(differing(recipe.select))[:12]
    return recipe.model_copy(update={"select": recipe.select.model_copy(update={"name": name})})


@dataclass(frozen=True)
class _Work:
    """What a process needs to measure a cell."""

    track: str
    fold: int
    variant: str
    recipe: Recipe
    seed: int
    key: str
    sources: tuple[str, ...]
    again: bool
    root: Path = Path()
    precision: dict[str, float] = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)


def _data_of(track: Track, data: Path | None, root: Path, folds: Sequence[int]) -> dict[int, str]:
    """Fold -> what is known of its data at present. Mistakes in them show before anything is trained.

    Raises:
        UserError: two folds are tested on the same samples.
    """
    known, tested = dict[int, str](), dict[str, int]()
    for fold in folds:
        place = root / track.name / f"fold-{fold}"
        with open_workspace(place / "workspace") as workspace:
            if track.collected:
                shutil.copyfile(track.collected, workspace.table(COLLECTED))
            base = track.recipe(track.media(data, root, fold), place, fold)
            if not known:  # what it finds is wrong in all of them
                check_ahead(base, workspace)
            record = ingest(base, workspace)
            check_listed(base, workspace)
        known[fold] = fingerprint(record.settings)
        if (same := tested.setdefault(record.counts["test_list"], fold)) != fold:
            raise UserError(
                f"{track.name}: splits {same} and {fold} are tested on the same samples; where the data name "
                "their test samples, remove test_share"
            )
    return known


def _works(
    track: Track, fold: int, base: Recipe, variant: Variant, seeds: Sequence[int], known: str | None
) -> Iterator[_Work]:
    recipe = recipe_of(base, variant)
    for seed in seeds:
        key = cell_key(recipe, seed, variant.again, known)
        yield _Work(track.name, fold, variant.name, recipe, seed, key, variant.sources, variant.again)


def _make_ready(base: Recipe, workspace: Workspace, jobs: int) -> None:
    """What all cells of a fold share."""
    ingest(base, workspace)
    probe(base, workspace)
    if reads_prepared(base):
        prepare(base, workspace)
    if base.web_sources:
        dedupe(base, workspace)
        # Windows and, of 2D students, frames: variants differ in which they train on.
        kinds = {kind: Run(sources=list(base.sources), set={"snippets.kind": kind}) for kind in _KINDS}
        seen = base.model_copy(update={"runs": kinds})
        train_teachers(seen, workspace, jobs)
        score(seen, workspace)
    if needs_camera(base):
        fit_camera_stage(base, workspace)


def _ready(works: Iterable[_Work], base: Recipe, workspace: Workspace, jobs: int) -> Iterator[_Work]:
    """Selects for every cell. Where other teachers score than the fold's, that is done in a copy of its workspace."""
    here, others = list[_Work](), dict[str, list[_Work]]()
    for work in works:
        if not work.sources or work.recipe.score == base.score:
            here.append(work)
        else:
            others.setdefault(fingerprint(differing(work.recipe.score))[:12], []).append(work)
    yield from _selected(here, workspace, jobs)
    for mark, mine in others.items():
        place = workspace.root.with_name(f"{workspace.root.name}-{mark}")
        if not place.exists():
            half = place.with_name(f"{place.name}.half")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(workspace.root, half, symlinks=True)
            half.rename(place)
        with open_workspace(place) as copy:
            _make_ready(base.model_copy(update={"score": mine[0].recipe.score}), copy, jobs)
            yield from list(_selected(mine, copy, jobs))


def _selected(works: Sequence[_Work], workspace: Workspace, jobs: int) -> Iterator[_Work]:
    """Selects for cells, of which several share a selection, and says how well."""
    # Variants have the same teachers, and so the same judges.
    crossed = [work.recipe for work in works if work.sources and work.recipe.select.calibrate.crossed]
    for recipe in {tuple(used_teachers(recipe)): recipe for recipe in crossed}.values():
        train_all_judges(recipe, workspace, jobs)
    for work in works:
        if work.sources:
            if work.recipe.select.calibrate.held_out:
                calibrate(work.recipe, workspace)
            select(work.recipe, workspace)
            work = _judged(work, work.recipe, workspace)
        yield replace(work, root=workspace.root)


def _judged(work: _Work, recipe: Recipe, workspace: Workspace) -> _Work:
    scores = [row for row in Story(recipe, workspace).selection_scores() if row.source in work.sources]
    return replace(
        work,
        precision={row.source: row.precision for row in scores if row.precision is not None},
        recall={row.source: row.recall for row in scores if row.recall is not None},
    )


def _measure(work: _Work) -> Cell:
    """Trains and tests. The runs have names of their own, for others may be under way."""
    workspace, run, first = Workspace(work.root), f"cell-{work.key}", f"first-{work.key}"
    planned = {run: work.recipe.runs["cell"]}
    if work.again:
        planned = {first: planned[run], run: planned[run].model_copy(update={"teacher": first})}
    recipe = work.recipe.model_copy(update={"runs": planned, "seeds": [work.seed]})
    if work.again:
        train_student(recipe, workspace, first, work.seed)
        seen = recipe.seen_by(run)
        score(seen, workspace)
        select(seen, workspace)
        work = _judged(work, seen, workspace)
    name = f"{run}-{work.seed}"
    if recipe.student.trunk_views and recipe.test.average == "prob":
        trained = train_student(recipe, workspace, run, work.seed).counts
        tested = test_on_features(recipe, workspace, workspace.run_dir(name) / "last.safetensors")
    else:
        trained, measured = (record.counts for record in train_and_test(recipe, work.root, ("student", run, work.seed)))
        tested = (measured["top1"], measured["mean_class"], measured["samples"])
    for training in (name, f"{first}-{work.seed}"):
        shutil.rmtree(workspace.run_dir(training), ignore_errors=True)
    for leftover in [
        path for folder in ("stages", "tables") for path in (workspace.root / folder).glob(f"*{work.key}*")
    ]:
        leftover.unlink()
    return Cell(
        track=work.track,
        fold=work.fold,
        variant=work.variant,
        seed=work.seed,
        key=work.key,
        top1=tested[0],
        mean_class=tested[1],
        tested=tested[2],
        target_clips_seen=trained["steps"] * trained["batch"]["target"],
        web_units={source: trained["units"][source] for source in work.sources},
        precision=work.precision,
        recall=work.recall,
    )


class _Kept:
    """Finished cells, one a line."""

    def __init__(self, path: Path) -> None:
        self._path, self._cells = path, dict[str, Cell]()
        if path.exists():
            for line in path.read_text().splitlines():
                with suppress(ValueError, TypeError):  # the last line of a killed run may be cut off
                    cell = Cell(**json.loads(line))
                    self._cells[cell.key] = cell

    def __contains__(self, key: str) -> bool:
        return key in self._cells

    def __getitem__(self, key: str) -> Cell:
        return self._cells[key]

    def add(self, cell: Cell) -> None:
        self._cells[cell.key] = cell
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(cell)) + "\n")


def _share(shared: Path, mine: Path) -> None:
    """Folds see the same files, so they share what was made of them: the trunk's features, prepared media."""
    shared.mkdir(parents=True, exist_ok=True)
    if not mine.exists():
        mine.unlink(missing_ok=True)  # a link whose target was moved
        mine.symlink_to(os.path.relpath(shared, mine.parent), target_is_directory=True)
