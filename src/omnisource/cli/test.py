"""`omnisource test`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell
from omnisource.cli.run import results_table
from omnisource.errors import UserError
from omnisource.progress import show
from omnisource.recipe import Recipe, load_recipe
from omnisource.workspace import StageRecord, Workspace, default_workspace


def test(
    recipe: RecipePath,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    run: Annotated[
        list[str] | None, typer.Option(help="Test only this run of the recipe.", show_default="all that are trained")
    ] = None,
    teacher: Annotated[list[str] | None, typer.Option(help="Test this teacher.", show_default=False)] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Test this file instead, with the student's input.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="What to call the results of --checkpoint.")] = "checkpoint",
    folds: Annotated[
        str | None,
        typer.Option(help="Folds or official splits to test and average, e.g. 1,2,3.", show_default=False),
    ] = None,
) -> None:
    """Test trained networks with all views, and print means and intervals over seeds and folds.

    A single view is quicker: --set test.clips=1 --set test.crops=1. With --folds, fold N is looked for in the
    workspace's folder `fold-N`, trained there with the recipe's fold set to N.
    """
    from omnisource.evaluate import summarise_folds, test_checkpoint

    loaded = load_recipe(recipe, overrides or [])
    root = workspace or default_workspace(loaded)
    places: list[tuple[Path, list[str]]] = [(root, list(overrides or []))]
    if folds:
        places = [(place, [*(overrides or []), *chosen]) for place, chosen in _fold_places(loaded, root, folds)]
    with ExitStack() as stack:
        entered = [stack.enter_context(opened(recipe, place, settings)) for place, settings in places]
        for one, place in entered:
            if checkpoint is not None:
                tell(test_checkpoint(one, place, name, checkpoint, one.student, one.test))
                continue
            tested = 0
            for record in _test_trained(one, place, run or [], teacher or []):
                tell(record)
                tested += 1
            if not tested:
                raise UserError(f"{place.root}: nothing is trained yet; run `omnisource run` or `omnisource train`")
        if checkpoint is not None or (teacher and not run):
            return  # their lines say it all; the table is of the recipe's runs
        summaries = summarise_folds([place for _, place in entered], entered[0][0])
        if shown := [summary for summary in summaries if not run or summary.run in run]:
            show(results_table(shown))


def _fold_places(recipe: Recipe, root: Path, folds: str) -> list[tuple[Path, list[str]]]:
    """The workspace of each fold, and the settings that it was trained with."""
    from omnisource.evaluate import fold_overrides, parse_folds

    places = [(root / f"fold-{fold}", fold_overrides(recipe, fold)) for fold in parse_folds(folds)]
    if absent := [(place, chosen) for place, chosen in places if not place.is_dir()]:
        place, chosen = absent[0]
        raise UserError(
            f"{place}: missing ({len(absent)} of {len(places)} folds are); train it there with `omnisource run` and "
            + " ".join(f"--set {setting}" for setting in chosen)
        )
    return places


def _test_trained(
    recipe: Recipe, workspace: Workspace, runs: Sequence[str], teachers: Sequence[str]
) -> Iterator[StageRecord]:
    from omnisource.evaluate import test_run, test_teacher

    planned = recipe.planned_runs()
    for name in runs:
        if name not in planned:
            raise UserError(f"recipe {recipe.name}: no run '{name}'; runs are: {', '.join(planned)}")
    for name in teachers:
        yield test_teacher(recipe, workspace, name)
    if teachers and not runs:
        return
    for name in runs or planned:
        for seed in recipe.seeds:
            if name in runs or workspace.record(f"train-{name}-{seed}"):
                yield test_run(recipe, workspace, name, seed)
