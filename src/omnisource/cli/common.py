"""What the verbs share: the recipe argument, the workspace, how a finished stage is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from omnisource.errors import UserError
from omnisource.progress import say
from omnisource.recipe import Recipe, load_recipe
from omnisource.workspace import StageRecord, Workspace, default_workspace, open_workspace

RecipePath = Annotated[Path, typer.Argument(help="The recipe (YAML).", show_default=False)]
WorkspaceDir = Annotated[
    Path | None,
    typer.Option(
        "--workspace", "-w", help="Where everything is written; default: workspaces/NAME.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override a setting: key=value, for instance --set student.epochs=5.", show_default=False
    ),
]

RunName = Annotated[
    str | None,
    typer.Option(help="For a run whose teacher is another run: let that run's students score.", show_default=False),
]


@contextmanager
def opened(
    path: Path, workspace: Path | None, overrides: list[str] | None, *, run: str | None = None, begin: bool = False
) -> Iterator[tuple[Recipe, Workspace]]:
    """Loads the recipe, as `run` sees it, and opens (locks) its workspace.

    Only verbs that `begin` a workspace make it if it is not there.
    """
    recipe = load_recipe(path, overrides or [])
    with open_workspace(workspace or default_workspace(recipe), begin=begin) as opened_workspace:
        yield (recipe if run is None else _seen_by(recipe, run)), opened_workspace


def _seen_by(recipe: Recipe, run: str) -> Recipe:
    if run not in recipe.planned_runs():
        raise UserError(f"recipe {recipe.name}: no run '{run}'; runs are: {', '.join(recipe.planned_runs())}")
    return recipe.seen_by(run)


def tell(record: StageRecord) -> None:
    """Prints one line about a stage that is finished."""
    shown = {name: text for name, value in record.counts.items() if (text := _shown(name, value))}
    counts = ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in shown.items())
    state = f"done in {record.seconds:.1f} s" if record.fresh else "nothing to do"
    say((record.stage, "bold"), f" {state}" + (f": {counts}" if counts else ""))


def _shown(name: str, value: object) -> str:
    """A number or a word, an interval, or what was left out by reason; "" for what does not fit on a line."""
    match value:
        case bool():
            return ""
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case str():
            return value
        case [float(low), float(high)] if name.endswith("_interval"):
            return f"{low:.4g} to {high:.4g}"
        case list() if name == "classes":
            return f"{len(value)}"
        case dict() if name in ("failed", "reasons"):
            return ", ".join(f"{count:,} {reason}" for reason, count in value.items())
        case _:
            return ""
