"""`omnisource report`."""

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell
from omnisource.progress import say


def report(recipe: RecipePath, workspace: WorkspaceDir = None, overrides: Overrides = None) -> None:
    """Write the report of what a workspace holds so far."""
    from omnisource.report import write_report

    with opened(recipe, workspace, overrides) as (loaded, place):
        tell(write_report(loaded, place))
        say(str(place.report_path))
