"""`omnisource camera`: the moving camera that turns images into clips."""

from pathlib import Path
from typing import Annotated

import typer

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell
from omnisource.progress import say

camera = typer.Typer(no_args_is_help=True, help="The moving camera that turns images into clips.")


@camera.command()
def fit(recipe: RecipePath, workspace: WorkspaceDir = None, overrides: Overrides = None) -> None:
    """Measure how the target's cameras move, and fit the Gaussian that images are filmed with."""
    from omnisource.clips import fit_camera_stage

    with opened(recipe, workspace, overrides) as (loaded, place):
        tell(fit_camera_stage(loaded, place))


@camera.command()
def sheet(
    recipe: RecipePath,
    out: Annotated[Path, typer.Option(help="The picture to write (JPEG or PNG).")] = Path("camera.jpg"),
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
) -> None:
    """Draw real clips beside clips filmed from images in every camera mode but the one per class."""
    from omnisource.clips import camera_sheet

    with opened(recipe, workspace, overrides) as (loaded, place):
        camera_sheet(loaded, place, out)
    say(f"wrote {out}")
