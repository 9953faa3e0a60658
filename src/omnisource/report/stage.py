"""`report`: one self-contained HTML file about everything that a recipe did."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc
import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from omnisource import __version__
from omnisource.errors import UserError
from omnisource.evaluate import RunSummary, left_out, measure, predictions_name, read_predictions, summarise
from omnisource.recipe import ALL, Recipe
from omnisource.report import charts
from omnisource.report.examples import galleries
from omnisource.report.findings import cautions, findings
from omnisource.report.numbers import Story
from omnisource.report.pages import page_template
from omnisource.tables import read_table, write_atomic
from omnisource.workspace import StageRecord, Workspace, content_of

_EXAMPLES = 12  # pictures of each kind


def write_report(recipe: Recipe, workspace: Workspace) -> StageRecord:
    """Writes `report/index.html` from the tables, the records and the logs of a workspace.

    Results that are not of the recipe as it is now are left out, and the page says which and why.

    Raises:
        UserError: nothing of this recipe has been tested yet.
    """
    before = [record.stage for record in workspace.records() if record.stage != "report"]
    others = left_out(recipe, workspace)
    settings = {"recipe": recipe.model_dump(mode="json"), "version": __version__}
    settings |= {"left_out": others} if others else {}
    if recipe.truth:
        files = [("truth.files", name) for name in recipe.truth.files]
        files += [("truth.segments", recipe.truth.segments)] if recipe.truth.segments else []
        settings["truth"] = [content_of(recipe.resolve(name), key) for key, name in files]

    def work(_: str) -> Mapping[str, Any]:
        summaries = summarise(workspace, recipe, without=others)
        if not summaries:
            why = "".join(f"; {name} is of another recipe: {reason}" for name, reason in list(others.items())[:1])
            raise UserError(
                f"{workspace.root}: nothing tested yet of this recipe, so nothing to report; run `omnisource run`{why}"
            )
        write_atomic(workspace.report_path, render(recipe, workspace, summaries, others).encode())
        return {"runs": len(summaries), "left_out": len(others)}

    return workspace.run_stage("report", settings=settings, after=before, outputs=[workspace.report_path], work=work)


def render(
    recipe: Recipe, workspace: Workspace, summaries: Sequence[RunSummary], others: Mapping[str, str] | None = None
) -> str:
    """The page as HTML; `others`: trainings that are left out, each with the reason.

    Of web data that are not selected yet it tells nothing.
    """
    story = Story(recipe, workspace) if recipe.web_sources and workspace.record(recipe.select.stage) else None
    filters = story.filter_scores() if story else []
    for names in (names for teacher, names in recipe.rounds().items() if teacher is not None):
        seen = recipe.seen_by(names[0])
        if workspace.record(seen.select.stage):
            filters += Story(seen, workspace).selection_scores()
    records = [record for record in workspace.records() if record.stage != "report"]
    by_class = _by_class(recipe, workspace, summaries)
    return page_template("report/page.html").render(
        name=recipe.name,
        version=__version__,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        classes=workspace.classes(),
        recipe_seed=recipe.seed,
        seeds=recipe.seeds,
        cards=_cards(summaries, story),
        baseline=summaries[0].run,
        results=[_result(summary) for summary in summaries],
        interval_kind=_interval_kind(summaries),
        left_out=others or {},
        web=bool(recipe.web_sources),
        untested=_untested(recipe, summaries, others or {}),
        split=recipe.test.split,
        charts={
            "comparison": Markup(charts.comparison(summaries)),
            "curves": Markup(charts.curves(_logs(workspace, summaries))),
            "per_class": Markup(charts.per_class(by_class.classes, by_class.runs)),
            "confusions": [Markup(charts.confusion(by_class.classes, *one)) for one in by_class.confusions],
        },
        by_class=by_class.rows(),
        runs_by_class=[run for run, _ in by_class.runs],
        most_classes=charts.MOST_CLASSES,
        narrow_confusions=len(by_class.classes) <= 12 and max(map(len, by_class.classes)) <= 20,
        funnels=story.funnels() if story else [],
        cautions=_found(workspace, "probe", cautions),
        findings=_found(workspace, recipe.select.stage, findings) if story else [],
        filters=filters,
        query_evidence=recipe.select.query_evidence,
        galleries=galleries(story, _EXAMPLES) if story else [],
        formats={name: source.format for name, source in recipe.sources.items()},
        records=[{**vars(record), "summary": _short(record.counts)} for record in records],
        lists=_lists(workspace),
        versions=records[-1].versions,
        recipe=yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True),
        plotly_js=Markup(get_plotlyjs()),
        percent=lambda share: "–" if share is None else f"{100 * share:.1f} %",
    )


def _found(workspace: Workspace, stage: str, told: Callable[[Mapping[str, Any]], list[str]]) -> list[str]:
    """What the record of a stage, if it ran, has to tell."""
    record = workspace.record(stage)
    try:
        return told(record.counts) if record else []
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise workspace.damaged(stage, f"counts: {error!r}") from error


def _cards(summaries: Sequence[RunSummary], story: Story | None) -> list[dict[str, str]]:
    first, last = summaries[0], _headline(summaries)
    cards = [{"value": f"{100 * first.top1:.1f} %", "what": f"top-1, {first.run}"}]
    if last is not first:
        cards.append({"value": f"{100 * last.top1:.1f} %", "what": f"top-1, {last.run}"})
    if last.gain is not None:
        cards.append(
            {
                "value": f"{100 * last.gain:+.1f}",
                "what": f"points gained {_span(last.gain_t_interval or last.gain_interval)}",
            }
        )
    if story:
        funnels = story.funnels()
        found, kept = (sum(funnel.counts[step] for funnel in funnels) for step in ("collected", "kept"))
        cards.append({"value": f"{kept:,} of {found:,}", "what": "web files kept"})
    return cards


def _headline(summaries: Sequence[RunSummary]) -> RunSummary:
    return next((summary for summary in summaries if summary.run == ALL), summaries[-1])


def _result(summary: RunSummary) -> dict[str, Any]:
    gain_span = summary.gain_t_interval or summary.gain_interval
    sure = gain_span is not None and (gain_span[0] > 0 or gain_span[1] < 0)
    return {
        "run": summary.run,
        "top1": f"{100 * summary.top1:.1f}",
        "interval": _span(summary.top1_t_interval or summary.top1_interval),
        "gain": "" if summary.gain is None else f"{100 * summary.gain:+.1f}",
        "gain_interval": "" if summary.gain is None else _span(gain_span),
        "tone": "" if summary.gain is None or not sure else "good" if summary.gain > 0 else "bad",
        "top5": f"{100 * summary.top5:.1f}",
        "mean_class": f"{100 * summary.mean_class:.1f}",
        "trainings": summary.trainings,
        "samples": f"{summary.samples} of {summary.samples + summary.failed}" if summary.failed else summary.samples,
        "list_hash": " ".join(summary.list_hashes),
    }


def _span(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _interval_kind(summaries: Sequence[RunSummary]) -> str:
    single = "bootstrap over test samples (a single training says nothing about the spread between seeds)"
    alone = [summary.run for summary in summaries if summary.top1_t_interval is None]
    if len(alone) == len(summaries):
        return f"{single}."
    return "Student's t over the seeds" + (f"; of {', '.join(alone)}: {single}." if alone else ".")


def _untested(recipe: Recipe, summaries: Sequence[RunSummary], others: Mapping[str, str]) -> list[str]:
    """What a run that is not finished has still to test: whole runs, and single seeds of the others."""
    tested = {summary.run: summary.seeds for summary in summaries}
    found = []
    for run in recipe.planned_runs():
        missing = [seed for seed in recipe.seeds if seed not in tested.get(run, []) and f"{run}-{seed}" not in others]
        if len(missing) == len(recipe.seeds):
            found.append(run)
        elif missing:
            found.append(f"{run} (seed {', '.join(map(str, missing))})")
    return found


def _logs(workspace: Workspace, summaries: Sequence[RunSummary]) -> list[tuple[str, Any]]:
    return [(s.run, workspace.run_dir(f"{s.run}-{s.seeds[0]}") / "log.jsonl") for s in summaries]


@dataclass(frozen=True)
class _ByClass:
    """What the first run and the one in the headline say of each class, their seeds together."""

    classes: list[str]
    samples: list[int]  # of the test, a class
    runs: list[tuple[str, list[float | None]]]  # accuracy a class; None: no test sample
    confusions: list[tuple[list[list[int]], str]]  # with a title

    def rows(self) -> list[tuple[str, int, list[float | None]]]:
        """Class, test samples, accuracy under each run."""
        accuracies = [list(values) for values in zip(*(values for _, values in self.runs), strict=True)]
        return list(zip(self.classes, self.samples, accuracies, strict=True))


def _by_class(recipe: Recipe, workspace: Workspace, summaries: Sequence[RunSummary]) -> _ByClass:
    shown = [summaries[0]] + ([_headline(summaries)] if len(summaries) > 1 else [])
    runs, confusions = [], []
    for summary in shown:
        matrices, accuracies = [], []
        for seed in summary.seeds:
            found = read_predictions(workspace.table(predictions_name(f"{summary.run}-{seed}", recipe.test.split)))
            metrics = measure(found.probs, found.labels, found.classes, bootstrap=0)
            matrices.append(metrics.confusion)
            accuracies.append([result.accuracy for result in metrics.per_class.values()])
        total = [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]
        runs.append((summary.run, [_mean(values) for values in zip(*accuracies, strict=True)]))
        confusions.append((total, f"{summary.run}, all seeds"))
    return _ByClass(found.classes, [result.samples for result in metrics.per_class.values()], runs, confusions)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _lists(workspace: Workspace) -> list[tuple[str, int, str]]:
    record = workspace.record("ingest")
    usable = (pc.field("role") == "target") & (pc.field("status") == "ok")
    splits = Counter(read_table(workspace.table("samples"), ["split"], usable)["split"].to_pylist())
    found = record.counts.get("list_hash") if record else None
    hashes = found if isinstance(found, dict) else {}
    return [(split, splits[split], digest) for split, digest in hashes.items()]


def _short(counts: Mapping[str, Any]) -> str:
    simple = {name: value for name, value in counts.items() if isinstance(value, int | float | str)}
    return ", ".join(
        f"{n.replace('_', ' ')} {v:.4g}" if isinstance(v, float) else f"{n.replace('_', ' ')} {v}"
        for n, v in simple.items()
    )
