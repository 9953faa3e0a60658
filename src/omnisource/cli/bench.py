"""`omnisource bench`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnisource.errors import UserError

if TYPE_CHECKING:
    from omnisource.evidence import Variant

app = typer.Typer(no_args_is_help=True, help="Measure whether the method works.")


Results = Annotated[Path, typer.Option(help="Folder of the figures as JSON, effect-TRACK.json.")]
Page = Annotated[Path, typer.Option(help="Page whose figures are replaced.")]
_RESULTS, _PAGE = Path("benchmarks/results"), Path("docs/evidence.md")


@app.command()
def effect(
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the real tracks' data (tennis/, home/).", show_default=False)
    ] = None,
    workspace: Annotated[Path, typer.Option(help="Where cells and their tables are kept.")] = Path("workspaces/effect"),
    track: Annotated[list[str] | None, typer.Option(help="Only this track; may be given several times.")] = None,
    folds: Annotated[int | None, typer.Option(min=1, help="Only so many folds.", show_default=False)] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every cell.")] = 3,
    few: Annotated[bool, typer.Option("--few", help="Without the ablations.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only the variant of this name, and what it refers to; several times.")
    ] = None,
    inflated: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK=FILE",
            help="3D students also start from the ImageNet weights of a 2D ResNet, as in slowonly_r50=resnet50.pth.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells trained side by side; no figure depends on it.")] = 1,
    results: Results = _RESULTS,
    page: Page = _PAGE,
) -> None:
    """Train every variant on every track, fold and seed; write what it amounts to. Resumable."""
    from omnisource.evidence import TRACKS, run_cells, summarise, track_of, variants_of, write_page, write_results
    from omnisource.progress import say

    root = workspace.resolve()
    wanted = [track_of(name) for name in track] if track else list(TRACKS)
    for left in [] if track else [one for one in TRACKS if not one.ready(data)]:
        say(f"{left.name}: left out, as DATA/{left.weights} is missing")
        wanted.remove(left)
    for chosen in wanted:
        numbers = chosen.folds[:folds]
        first = chosen.recipe(chosen.media(data, root, numbers[0]), root / chosen.name, numbers[0])
        variants = _wanted(variants_of(first, few, _start(inflated)), only, chosen.name)
        cells = run_cells(chosen, data, root, variants, range(seeds), numbers, jobs)
        rows = summarise(cells, variants)
        for row in rows:
            gain = "" if row.gain is None else f"{row.gain:+5.1f}  {row.gain_interval}  over {row.against}"
            line = f"{chosen.name}  {row.variant:32} {row.top1:5.1f}  {gain}"
            say(line)
        command = ["omnisource", "bench", "effect", *(["--data", "DATA"] if chosen.folder else [])]
        command += ["--track", chosen.name, *(["--folds", str(folds)] if folds else []), "--seeds", str(seeds)]
        command += ["--inflated", f"{inflated.partition('=')[0]}=FILE"] if inflated else []
        command += ["--few"] * few + [word for name in only or () for word in ("--only", name)]
        write_results(rows, shlex.join(command), results)
        write_page(results, page)
    say(f"figures: {results}, {page}")


@app.command(name="page")
def page_again(results: Results = _RESULTS, page: Page = _PAGE) -> None:
    """Write the page of evidence anew from the figures that are there; trains nothing."""
    from omnisource.evidence import write_page

    write_page(results, page)


def _start(inflated: str | None) -> tuple[str, Path] | None:
    """The network and the file of `--inflated NETWORK=FILE`."""
    from omnisource.networks import is_spatial, names

    if inflated is None:
        return None
    network, _, file = inflated.partition("=")
    path = Path(file).expanduser()
    if network not in names() or is_spatial(network):
        raise UserError(
            f"--inflated {inflated}: '{network}' is no 3D network; write it as in slowonly_r50=resnet50.pth"
        )
    if not path.is_file():
        raise UserError(f"--inflated {inflated}: no such file")
    return network, path.resolve()


def _wanted(variants: list["Variant"], only: list[str] | None, track: str) -> list["Variant"]:
    """The variants of the names in `only`, and those over which their gains are counted."""
    if not only:
        return variants
    names = [variant.name for variant in variants]
    if unknown := [one for one in only if one not in names]:
        raise UserError(f"--only {unknown[0]}: no such variant of {track}; variants are: {'; '.join(names)}")
    wanted = set(only)
    for _ in range(2):  # a gain may be over a variant whose own is over target-only
        wanted |= {variant.against for variant in variants if variant.name in wanted}
    return [variant for variant in variants if variant.name in wanted]
