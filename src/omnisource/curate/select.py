"""`select`: scores become decisions: which units train, and under which label (paper, sections 3.2 and 3.3)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from omnisource.curate.calibrate import fit
from omnisource.curate.decide import decide, quantile_thresholds
from omnisource.curate.overrides import read_overrides
from omnisource.curate.units import units
from omnisource.errors import UserError
from omnisource.recipe import Recipe
from omnisource.tables import DECISIONS, database, table_writer, view_table
from omnisource.workspace import StageRecord, Workspace

GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RULES = ("agree", "query", "teacher")


def select(recipe: Recipe, workspace: Workspace) -> StageRecord:
    """Writes the table `decisions-NAME` of the recipe's selection: one row per scored unit, with a reason if dropped.

    Selections of other names stay as they are. Human overrides win over the rule. Memory stays below 4 GB however
    many rows there are.
    """
    settings = recipe.select
    classes = workspace.classes()
    overrides = human_decisions(recipe, classes)
    path = workspace.table(f"decisions-{settings.name}")

    def work(_: str) -> Mapping[str, Any]:
        fitted = fit(recipe, workspace)
        scores, samples = workspace.table(recipe.scored_by("scores")), workspace.table("samples")
        align = settings.calibrate.align
        soft = settings.label == "soft"
        with units(scores, samples, classes, soft, fitted.temperatures, settings.query_evidence, align) as db:
            found = fitted.thresholds
            if settings.calibrate.quantile is not None:
                found = quantile_thresholds(db, settings, settings.calibrate.quantile)
            _write(path, decide(db, settings, overrides, found))
            rows = db.execute("FROM trust ORDER BY ALL").fetchall() if settings.query_evidence else []
            weights = db.execute("FROM class_weights ORDER BY ALL").fetchall() if align else []
        trust = {f"{source} ({unit})": round(value, 3) for source, unit, value in rows}  # how often queries are right
        counts = _counts(path) | fitted.measured
        if trust:
            counts["query_trust"] = trust
        if weights:
            counts["class_weights"] = {
                f"{source} ({unit})": {label: round(w, 3) for label, w in zip(classes, values, strict=True)}
                for source, unit, values in weights
            }
        return counts

    return workspace.run_stage(
        settings.stage,
        settings={
            "select": settings.model_dump(mode="json"),
            "classes": classes,
            "overrides": overrides.to_pylist() if overrides is not None else None,
        },
        after=["ingest", *map(recipe.scored_by, ["score", *(["calibrate"] if settings.calibrate.held_out else [])])],
        outputs=[path],
        work=work,
    )


@dataclass(frozen=True)
class Share:
    """How much of a source's units of one kind a rule keeps at a threshold."""

    source: str
    unit: str
    rule: str
    threshold: float
    kept: int
    of: int


def human_decisions(recipe: Recipe, classes: Sequence[str]) -> pa.Table | None:
    """The recipe's overrides, or None where it has none.

    Raises:
        UserError: they, or `select.per_class`, name a class that is not there, or the file can't be read.
    """
    settings = recipe.select
    if unknown := sorted(set(settings.per_class) - set(classes)):
        raise UserError(f"select.per_class names '{unknown[0]}', which is not in the class list")
    return read_overrides(recipe.resolve(settings.overrides), classes) if settings.overrides else None


def what_if(
    recipe: Recipe, workspace: Workspace, thresholds: Sequence[float] = GRID, rules: Sequence[str] = RULES
) -> list[Share]:
    """The funnel for a grid of thresholds and rules; writes nothing. Leaves out caps, overrides, found thresholds.

    `select.unanimous`, temperatures, class shares and the query's evidence hold as in the recipe.
    """
    conditions = {
        "agree": "top = query AND query_prob >= {t}::DOUBLE",  # as `decide` compares
        "query": "query_prob >= {t}::DOUBLE",
        "teacher": "top_prob >= {t}::DOUBLE",
    }
    heard = " AND unanimous" if recipe.select.unanimous else ""
    grid = [(rule, float(threshold)) for rule in rules for threshold in thresholds]
    columns = ", ".join(f"count(*) FILTER (WHERE {conditions[rule].format(t=t)}{heard})" for rule, t in grid)
    classes = workspace.classes()
    temperatures = fit(recipe, workspace).temperatures if recipe.select.calibrate.temperature is not False else {}
    with units(
        workspace.table(recipe.scored_by("scores")),
        workspace.table("samples"),
        classes,
        False,
        temperatures,
        recipe.select.query_evidence,
        recipe.select.calibrate.align,
    ) as db:
        rows = db.execute(
            f"SELECT source, unit, count(*), {columns} FROM units GROUP BY source, unit ORDER BY source, unit"
        ).fetchall()
    return [
        Share(source, unit, rule, threshold, kept, of)
        for source, unit, of, *kepts in rows
        for (rule, threshold), kept in zip(grid, kepts, strict=True)
    ]


def _write(path: Path, decisions: Iterable[pa.Table]) -> None:
    """Streams the decisions into the table; it appears whole or not at all."""
    with table_writer(path, DECISIONS) as writer:
        for table in decisions:
            writer.write_table(table)


def _counts(path: Path) -> dict[str, Any]:
    """Kept, negative and dropped units per source and kind, with the reasons."""
    counts: dict[str, Any] = {"rows": pq.read_metadata(path).num_rows, "kept": 0, "sources": {}}
    with database(path.parent) as db:
        view_table(db, "decisions", path)
        rows = db.execute(
            "SELECT source, unit, keep, negative, reason, decided_by = 'human', count(*) FROM decisions GROUP BY ALL"
            " ORDER BY ALL"
        ).fetchall()
    for source, unit, keep, negative, reason, human, count in rows:
        entry = (
            counts["sources"]
            .setdefault(source, {})
            .setdefault(unit, {"units": 0, "kept": 0, "negative": 0, "human": 0, "reasons": {}})
        )
        entry["units"] += count
        entry["kept"] += count * keep
        entry["negative"] += count * negative
        entry["human"] += count * human
        counts["kept"] += count * keep
        if reason is not None:
            entry["reasons"][reason] = entry["reasons"].get(reason, 0) + count
    return counts
