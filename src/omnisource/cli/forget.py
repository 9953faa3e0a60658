"""`omnisource forget`."""

from pathlib import Path
from typing import Annotated

import typer

from omnisource.errors import UserError
from omnisource.progress import say


def forget(
    workspace: Annotated[Path, typer.Option("--workspace", "-w", help="Where it was collected.", show_default=False)],
    url: Annotated[str | None, typer.Option(help="Of one file.", show_default=False)] = None,
    author: Annotated[str | None, typer.Option(help="All of one author.", show_default=False)] = None,
    host: Annotated[str | None, typer.Option(help="All from one host.", show_default=False)] = None,
    sha256: Annotated[str | None, typer.Option(help="One content, wherever it came from.", show_default=False)] = None,
) -> None:
    """Remove media and their rows, never fetch them again, and list the runs that used them."""
    from omnisource.collect import forget as take_out
    from omnisource.workspace import open_workspace

    given = {"url": url, "author": author, "host": host, "sha256": sha256}
    asked = [(kind, value) for kind, value in given.items() if value]
    if len(asked) != 1:
        raise UserError("give exactly one of --url, --author, --host, --sha256")
    with open_workspace(workspace, begin=False) as opened:
        done = take_out(opened, *asked[0])
    say(f"removed {done.files} files ({done.bytes} bytes) and {done.urls} URLs; they are not fetched again")
    for table, rows in done.rows.items():
        say(f"  {rows} rows of {table}")
    if done.outside:
        say(
            f"{done.outside[0]}: your own file stays ({len(done.outside)} in all); delete it or take it out of your "
            "list, or the next run lists it again"
        )
    if done.runs:
        names = ", ".join(done.runs)
        say(f"trained with them: {names}; train these again")
