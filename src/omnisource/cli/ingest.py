"""`omnisource ingest`."""

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell


def ingest(recipe: RecipePath, workspace: WorkspaceDir = None, overrides: Overrides = None) -> None:
    """List the recipe's sources: folders and lists become the samples table."""
    from omnisource.ingest import ingest as stage

    with opened(recipe, workspace, overrides, begin=True) as (loaded, place):
        tell(stage(loaded, place))
