"""`omnisource train`."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell
from omnisource.errors import UserError
from omnisource.progress import be_quiet, say
from omnisource.recipe import Recipe, load_recipe
from omnisource.workspace import StageRecord, Workspace, default_workspace

if TYPE_CHECKING:
    from omnisource.train import Changed


def train(
    recipe: RecipePath,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Teachers or runs of the recipe. Default: all that can be trained now.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Seeds of the runs; default: the recipe's.", show_default=False)
    ] = None,
    allow_changed: Annotated[
        bool,
        typer.Option(
            "--allow-changed", help="Go on with an interrupted run though its settings or its samples have changed."
        ),
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin an interrupted run again when something has changed.")
    ] = False,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
) -> None:
    """Train teachers and students. The same command continues an interrupted training.

    On several GPUs: torchrun --nproc-per-node 8 -m omnisource train RECIPE NAME
    """
    from omnisource.train import train_judges, train_student, train_teacher

    if allow_changed and anew:
        raise UserError("--allow-changed and --anew contradict each other; give one")
    changed: Changed = "continue" if allow_changed else "anew" if anew else "refuse"
    with _opened(recipe, workspace, overrides) as (loaded, place, note):
        wanted = names or _possible(loaded, place)
        for name in wanted:
            if name in loaded.teachers:
                note(train_teacher(loaded, place, name, changed))
                if loaded.select.calibrate.crossed:
                    for record in train_judges(loaded, place, name, changed):
                        note(record)
            elif name in loaded.planned_runs():
                for one in seed or loaded.seeds:
                    note(train_student(loaded, place, name, one, changed))
            else:
                raise UserError(
                    f"'{name}' is no teacher ({', '.join(loaded.teachers)}) and no run "
                    f"({', '.join(loaded.planned_runs())}) of {recipe}"
                )
        if not wanted:
            say("nothing to train yet: run `omnisource ingest` and `omnisource probe` first")


def _possible(recipe: Recipe, workspace: Workspace) -> Sequence[str]:
    """The teachers, and the runs whose web data are selected."""
    runs, web = recipe.planned_runs(), set(recipe.web_sources)
    selected = {name for name in runs if workspace.record(recipe.seen_by(name).select.stage)}
    return [*recipe.teachers, *(name for name in runs if name in selected or not web & set(runs[name].sources))]


@contextmanager
def _opened(
    path: Path, workspace: Path | None, overrides: list[str] | None
) -> Iterator[tuple[Recipe, Workspace, Callable[[StageRecord], None]]]:
    """Recipe and workspace. Of the processes of a torchrun the first one locks it, keeps the records and speaks."""
    if int(os.environ.get("RANK", "0")) == 0:
        with opened(path, workspace, overrides) as (recipe, place):
            yield recipe, place, tell
        return
    be_quiet()
    recipe = load_recipe(path, overrides or [])
    root = (workspace or default_workspace(recipe)).expanduser().resolve()
    yield recipe, Workspace(root, follows=True), lambda record: None
