"""`omnisource dedupe`."""

import typer

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell


def dedupe(
    recipe: RecipePath,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    workers: int | None = typer.Option(None, "--workers", min=1, help="Decoding processes; default: one a CPU."),
) -> None:
    """Drop copies within the web, and what is too close to the target's val and test samples."""
    from omnisource.curate import dedupe as stage

    with opened(recipe, workspace, overrides) as (loaded, place):
        tell(stage(loaded, place, workers))
