"""`omnisource plan`."""

from pathlib import Path
from typing import Annotated

import typer

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened
from omnisource.errors import UserError
from omnisource.progress import say


def plan(
    recipe: RecipePath,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.", show_default=False)],
    steps: Annotated[
        str | None,
        typer.Option(
            help="Which steps: A:B, from A up to but not including B; default: the first hundred.", show_default=False
        ),
    ] = None,
    run: Annotated[str, typer.Option(help="A run or a teacher of the recipe.")] = "all",
    seed: Annotated[int | None, typer.Option(help="Default: the recipe's first.", show_default=False)] = None,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
) -> None:
    """Write what stands in the batches of a training: one row a slot, without training."""
    from omnisource.train import write_plan

    wanted = None if steps is None else _range(steps)
    with opened(recipe, workspace, overrides) as (loaded, place):
        rows = write_plan(loaded, place, run, seed, wanted, out)
    say(f"{out}: {rows:,} slots")


def _range(steps: str) -> range:
    first, separator, last = steps.partition(":")
    if not (separator and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise UserError(f"--steps {steps}: write it as A:B with A < B, for instance --steps 0:100")
    return range(int(first), int(last))
