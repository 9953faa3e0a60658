"""`omnisource prepare`."""

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell


def prepare(recipe: RecipePath, workspace: WorkspaceDir = None, overrides: Overrides = None) -> None:
    """Optional: store media once more in the form that training reads fastest."""
    from omnisource.curate import prepare as stage

    with opened(recipe, workspace, overrides) as (loaded, place):
        tell(stage(loaded, place))
