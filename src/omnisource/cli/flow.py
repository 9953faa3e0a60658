"""`omnisource flow`."""

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell


def flow(recipe: RecipePath, workspace: WorkspaceDir = None, overrides: Overrides = None) -> None:
    """Compute optical flow of the target's videos, for networks with `input.modality: flow`."""
    from omnisource.flow import compute_flow

    with opened(recipe, workspace, overrides) as (loaded, place):
        tell(compute_flow(loaded, place))
