"""What the verbs share: the recipe argument, the workspace, how a finished stage is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from omnisource.progress import console
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


@contextmanager
def opened(path: Path, workspace: Path | None, overrides: list[str] | None) -> Iterator[tuple[Recipe, Workspace]]:
    """Loads the recipe and opens (locks) its workspace."""
    recipe = load_recipe(path, overrides or [])
    with open_workspace(workspace or default_workspace(recipe)) as opened_workspace:
        yield recipe, opened_workspace


def tell(record: StageRecord) -> None:
    """Prints one line about a stage that is finished."""
    simple = {k: v for k, v in record.counts.items() if isinstance(v, int | float | str) and not isinstance(v, bool)}
    counts = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in simple.items())
    state = f"done in {record.seconds:.1f} s" if record.fresh else "nothing to do"
    console.print(f"[bold]{record.stage}[/] {state}" + (f": {counts}" if counts else ""), soft_wrap=True)


def _number(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
