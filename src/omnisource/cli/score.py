"""`omnisource score`."""

import typer

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell


def score(
    recipe: RecipePath,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    workers: int | None = typer.Option(None, "--workers", min=1, help="Decoding processes; default: one a CPU."),
) -> None:
    """Let the teachers look at the web samples."""
    from omnisource.curate import score as stage

    with opened(recipe, workspace, overrides) as (loaded, place):
        tell(stage(loaded, place, workers))
