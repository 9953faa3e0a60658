"""`omnisource collect`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from omnisource.cli.common import Overrides, WorkspaceDir, tell
from omnisource.progress import printable, say, show


def collect(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe (YAML).", show_default=False)] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Without a recipe: file of class names, one a line.", show_default=False)
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(
            help="Without a recipe: NAME[:ARGUMENT],... for instance openverse,urls:list.txt", show_default=False
        ),
    ] = None,
    workspace: WorkspaceDir = None,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show queries, expected requests and limits.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try what failed again.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show how far it is, by source and class.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask whether files that came have changed.")] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Ask private and loopback addresses too.")
    ] = False,
    check: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Ask one source for three results.", show_default=False)
    ] = None,
    query: Annotated[str, typer.Option(help="What --check asks for.")] = "playing tennis",
) -> None:
    """Turn class names into web media: search, download, remember where everything came from.

    Example: omnisource collect --classes names.txt --sources openverse --workspace web --dry-run
    """
    from omnisource.cli.orders import order_from
    from omnisource.collect import check_source, collect_order, preview, standing
    from omnisource.recipe import CollectSource
    from omnisource.workspace import find_workspace, open_workspace

    order, place = order_from(recipe, classes, sources, workspace, overrides or [], allow_private, bool(check))
    if check is not None:
        source = CollectSource.model_validate(check)
        known = [one for one in order.settings.sources if one.label == source.label or one.name == check]
        candidates, seconds = check_source(order, known[0] if known else source, query.split())
        say(f"{check}: {len(candidates)} results in {seconds:.1f} s")
        for one in candidates:
            say(f"  {one.format}  {one.licence or 'licence unknown'}  {one.url}")
        return
    if status:
        now = standing(find_workspace(place))
        table = Table("source", "class", "found", "finished", "failed", box=None)
        for row in now.rows:
            table.add_row(*(printable(str(cell)) if cell is not None else "" for cell in row))
        show(table)
        say(now.pace)
        return
    if dry_run:
        table = Table("source", "queries", "searches", "requests up to", "results up to", "first queries", box=None)
        for planned in preview(order):
            first = "; ".join(one.text for one in planned.queries[:3])
            numbers = [len(planned.queries), planned.searches, planned.requests, planned.most_results]
            table.add_row(planned.source.label, *map(str, numbers), planned.problem or first)
        show(table)
        settings = order.settings
        say(
            f"limits: {settings.per_host} requests at once and {settings.rate_per_host:g} a second to one host, "
            f"robots.txt {'obeyed' if settings.robots else 'not obeyed'}, files up to "
            f"{settings.max_image_bytes / 2**20:.0f} / {settings.max_clip_bytes / 2**20:.0f} / "
            f"{settings.max_untrimmed_bytes / 2**20:.0f} MiB (image / clip / untrimmed), licences: "
            f"{', '.join(settings.licence) or 'all'}"
        )
        return
    with open_workspace(place) as opened:
        tell(collect_order(order, opened, retry_failed=retry_failed, refresh=refresh))
