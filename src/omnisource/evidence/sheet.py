"""The answers for one's own data, as a page to look at."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from markupsafe import Markup

from omnisource.evaluate.metrics import Interval
from omnisource.evidence.page import forest, load_rows
from omnisource.evidence.summary import Row, is_clear
from omnisource.recipe import TARGET_ONLY, Recipe
from omnisource.report.pages import page_template
from omnisource.tables import write_atomic

_BY_CHANCE = 0.05  # of rows without any effect, how many an interval of 95 % shows clear of zero


def write_sheet(results: Path, recipe: Recipe, path: Path) -> None:
    """Writes the page of a recipe's rows.

    Args:
        results: the file that `write_results` wrote.
        recipe: whose data and settings these are.
        path: of the HTML file.
    """
    rows, facts = load_rows(results)
    first = rows[0]
    text = page_template("evidence/ablation.html").render(
        name=recipe.name,
        version=facts["versions"]["omnisource"],
        versions=facts["versions"],
        date=facts["date"],
        command=facts["command"],
        folds=first.folds,
        seeds=first.seeds,
        tested=first.tested,
        cards=_cards(rows),
        cautions=cautions(rows),
        picture=Markup(forest(rows)),
        questions={question: [r for r in rows if r.question == question] for question in _questions(rows)},
        baseline=TARGET_ONLY,
        web=recipe.web_sources,
        recipe=yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True),
        span=span,
        tone=_tone,
    )
    write_atomic(path, text.encode())


def cautions(rows: Sequence[Row]) -> list[str]:
    """What to mind when reading the rows."""
    first, gains = rows[0], [row for row in rows if row.over_target is not None]
    found = []
    if first.folds == 1:
        found.append(
            "There is one split, so the intervals say how much trainings differ, not what other test samples would "
            "say. `test_share`, or conditions on a column `fold`, give several."
        )
    if first.folds * first.seeds < 3:
        found.append("Fewer than three trainings a row: add seeds or splits before believing a gain.")
    clear = sum(is_clear(row.over_target_interval) for row in gains)
    chance = round(_BY_CHANCE * len(gains))
    if clear and chance:
        found.append(
            f"{clear} of {len(gains)} rows are clear of zero; of so many, chance alone would show about {chance}. The "
            "best of many rows looks better than it is: measure it again with other seeds before relying on it."
        )
    return found


def span(interval: Interval | None) -> str:
    """An interval as text."""
    return "" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}"


def _questions(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.question for row in rows))


def _tone(interval: Interval | None) -> str:
    if interval is None or not is_clear(interval):
        return ""
    return "good" if interval[0] > 0 else "bad"


def _cards(rows: Sequence[Row]) -> list[dict[str, str]]:
    cards = [
        {"value": f"{row.top1:.1f} %", "what": f"top-1, {row.variant}"} for row in rows if row.variant == TARGET_ONLY
    ]
    gains = [row for row in rows if row.over_target is not None]
    if gains:
        best = max(gains, key=lambda row: row.over_target or 0.0)
        sure = "" if is_clear(best.over_target_interval) else ", not significant"
        cards.append({"value": f"{best.over_target:+.1f}", "what": f"points, the best row: {best.variant}{sure}"})
        clear = sum(is_clear(row.over_target_interval) and (row.over_target or 0) > 0 for row in gains)
        cards.append(
            {"value": f"{clear} of {len(gains)}", "what": "rows are better than the target alone, clear of zero"}
        )
    return cards
