"""`omnisource run`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from omnisource.cli.common import Overrides, RecipePath, WorkspaceDir, opened, tell
from omnisource.progress import say, show
from omnisource.recipe import Recipe
from omnisource.workspace import StageRecord, Workspace

if TYPE_CHECKING:
    from omnisource.evaluate import RunSummary

Jobs = Annotated[
    int | None,
    typer.Option(min=1, show_default=False, help="Trainings side by side; default: what the cores allow."),
]


def run(recipe: RecipePath, workspace: WorkspaceDir = None, overrides: Overrides = None, jobs: Jobs = None) -> None:
    """Run a whole recipe: curate the web, train with and without it, test, report. Resumes where it stopped.

    Example: omnisource run project/recipe.yaml --set student.epochs=5
    """
    with opened(recipe, workspace, overrides, begin=True) as (loaded, place):
        run_and_show(loaded, place, jobs)


def run_and_show(recipe: Recipe, workspace: Workspace, jobs: int | None) -> None:
    """Runs all stages, tells each, and prints the table of results and the report's path."""
    from omnisource.evaluate import summarise
    from omnisource.pipeline import run_in

    fresh: list[str] = []

    def note(record: StageRecord) -> None:
        if record.fresh:
            fresh.append(record.stage)
        tell(record)

    report = run_in(recipe, workspace, jobs=jobs, tell=note)
    say()
    show(results_table(summarise(workspace, recipe)))
    say("report: ", (str(report), "bold"))
    if not fresh:
        say("everything was finished already; nothing was done again")


def results_table(summaries: Sequence["RunSummary"]) -> Table:
    """Every run's accuracy, with what the web added to it."""
    single = [row.run for row in summaries if row.top1_t_interval is None]
    how = "t over trainings" if len(single) < len(summaries) else "bootstrap over samples"
    if single and len(single) < len(summaries):
        how += f"; bootstrap over samples for {', '.join(single)} (one training)"
    table = Table(
        title=f"top-1 on {summaries[0].samples} test samples, 95 % intervals: {how}",
        caption="\n".join([*_of_each(summaries, _scored), *_of_each(summaries, _tested_on)]),
        title_justify="left",
        caption_justify="left",
    )
    for name in ("trained on", "top-1", "interval", "gain", "interval", "trainings"):
        table.add_column(name, justify="left" if name == "trained on" else "right")
    for row in summaries:
        gain = "" if row.gain is None else f"{100 * row.gain:+.1f}"
        table.add_row(
            row.run,
            f"{100 * row.top1:.1f}",
            _span(row.top1_t_interval or row.top1_interval),
            gain,
            _span(row.gain_t_interval or row.gain_interval),
            str(row.trainings),
        )
    return table


def _of_each(summaries: Sequence["RunSummary"], say: Callable[["RunSummary"], str]) -> list[str]:
    """What is said of every run: in one line where it is the same of all, as it should be."""
    said = {row.run: say(row) for row in summaries}
    same = len(set(said.values())) == 1
    return [next(iter(said.values()))] if same else [f"{run}: {text}" for run, text in said.items()]


def _scored(row: "RunSummary") -> str:
    return f"{row.samples} of {row.samples + row.failed} scored"


def _tested_on(row: "RunSummary") -> str:
    return f"test list {' '.join(row.list_hashes)}"


def _span(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}"
