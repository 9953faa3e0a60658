"""What the tables say about the way of the web data: the funnel, the reasons, the filters against the truth."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnisource.recipe import Recipe
from omnisource.report.truth import Known, read_truth
from omnisource.tables import check_table, read_batches
from omnisource.tables.schemas import schema_of
from omnisource.workspace import Workspace

Row = dict[str, Any]
STEPS = ("collected", "readable", "not duplicate", "kept")
# What of each table the report tells.
_SAMPLES = ("sample_id", "source", "role", "uri", "query_label", "start_s", "end_s", "status", "reason")
_PROBE = ("sample_id", "fps", "num_frames", "status", "reason")
_DUPLICATES = ("sample_id", "rule", "twin_id", "similarity", "status", "reason")
_DECISIONS = (
    *("sample_id", "source", "unit", "start_s", "end_s", "keep", "negative", "label", "confidence", "reason"),
    "decided_by",
)


@dataclass(frozen=True)
class Funnel:
    """One web source from collection to training, in files; and in units where a file has several."""

    source: str
    format: str
    counts: dict[str, int]  # per step of STEPS
    reasons: list[tuple[str, str, int]]  # (step that dropped it, reason code, files or units)
    units: int  # images, clips, windows, frames that were scored
    kept_units: int
    by_class: dict[str, dict[str, int]]  # query class -> step -> files


@dataclass(frozen=True)
class FilterScore:
    """A filter against the truth. `precision` and `recall` are None where nothing could be counted."""

    filter: str
    source: str
    meaning: str
    right: int  # chosen by the filter and rightly so
    chosen: int
    wanted: int  # what a perfect filter would choose

    @property
    def precision(self) -> float | None:
        """Share of the chosen that are right."""
        return self.right / self.chosen if self.chosen else None

    @property
    def recall(self) -> float | None:
        """Share of the wanted that were chosen."""
        return self.right / self.wanted if self.wanted else None


class Story:
    """The tables of a finished curation in memory: `samples` holds the web's alone, `everything` the target's too."""

    def __init__(self, recipe: Recipe, workspace: Workspace) -> None:
        self.recipe = recipe
        self.everything = _by_id(workspace.table("samples"), _SAMPLES)
        self.samples = {i: row for i, row in self.everything.items() if row["role"] == "web"}
        self.probe = _by_id(workspace.table("probe"), _PROBE)
        self.duplicates = _by_id(workspace.table("duplicates"), _DUPLICATES)
        self.decisions: dict[str, list[Row]] = defaultdict(list)
        for row in _rows(workspace.table(f"decisions-{recipe.select.name}"), _DECISIONS):
            self.decisions[row["sample_id"]].append(row)
        self.classes = set(workspace.classes())
        self._truth = read_truth(recipe, recipe.truth, self.samples.values()) if recipe.truth else None

    def fate(self, sample_id: str) -> tuple[str, str | None]:
        """The last step of STEPS that a sample reached, and why it went no further."""
        sample = self.samples[sample_id]
        if sample["status"] != "ok":
            return "collected", sample["reason"]
        probed = self.probe.get(sample_id)
        if probed is None or probed["status"] != "ok":
            return "collected", probed["reason"] if probed else "not_probed"
        twin = self.duplicates.get(sample_id)
        if twin is not None and twin["status"] != "ok":
            return "readable", twin["reason"]
        units = self.decisions.get(sample_id, [])
        if any(unit["keep"] for unit in units):
            return "kept", None
        reasons = Counter(unit["reason"] for unit in units)
        return "not duplicate", reasons.most_common(1)[0][0] if reasons else "not_scored"

    def funnels(self) -> list[Funnel]:
        """One funnel a web source, in the recipe's order."""
        return [self._funnel(name) for name in self.recipe.web_sources]

    def _funnel(self, source: str) -> Funnel:
        counts: Counter[str] = Counter()
        reasons: Counter[tuple[str, str]] = Counter()
        by_class: dict[str, Counter[str]] = defaultdict(Counter)
        units = kept_units = 0
        for sample_id, sample in self.samples.items():
            if sample["source"] != source:
                continue
            reached, reason = self.fate(sample_id)
            for step in STEPS[: STEPS.index(reached) + 1]:
                counts[step] += 1
                by_class[sample["query_label"] or "(no query)"][step] += 1
            if reason is not None:
                reasons[STEPS[STEPS.index(reached) + 1], reason] += 1
            units += len(self.decisions.get(sample_id, []))
            kept_units += sum(unit["keep"] for unit in self.decisions.get(sample_id, []))
        ordered = sorted(reasons.items(), key=lambda item: (STEPS.index(item[0][0]), -item[1]))
        return Funnel(
            source,
            self.recipe.sources[source].format,
            {step: counts[step] for step in STEPS},
            [(step, reason, count) for (step, reason), count in ordered],
            units,
            kept_units,
            {name: {step: by_class[name][step] for step in STEPS} for name in sorted(by_class)},
        )

    def filter_scores(self) -> list[FilterScore]:
        """Every filter against the recipe's `truth`; empty when the recipe gives none."""
        truth = self._truth
        if truth is None:
            return []
        scores = [score for name in self.recipe.web_sources for score in self._scores_of(name, truth)]
        return [score for score in scores if score.wanted + score.chosen]

    def selection_scores(self) -> list[FilterScore]:
        """The selection alone against the recipe's `truth`; empty when the recipe gives none."""
        return [score for score in self.filter_scores() if score.filter == self.selection]

    @property
    def selection(self) -> str:
        """What the selection is called among the filters."""
        students = self.recipe.students
        return "teacher's selection" if students is None else f"selection by the students of {students}"

    def shown(self, sample_id: str, unit: Row) -> set[str] | None:
        """The classes that a unit shows by the recipe's truth; None: not known."""
        return self._truth.shown(sample_id, unit) if self._truth else None

    def _scores_of(self, source: str, truth: Known) -> Iterable[FilterScore]:
        known = {i: truth.files[i] for i, s in self.samples.items() if s["source"] == source and i in truth.files}
        fates = {sample_id: self.fate(sample_id) for sample_id in known}
        for name, column, step, reasons in (
            ("broken files", "broken", "collected", ()),
            ("exact duplicates", "exact_duplicate_of", "readable", ("duplicate_exact", "duplicate_near")),
            ("near-duplicates of test clips", "near_duplicate_of", "readable", ("near_test",)),
        ):
            judged = {i for i, row in known.items() if column in row}  # of the others the truth says nothing
            chosen = {i for i in judged if fates[i][0] == step and (not reasons or fates[i][1] in reasons)}
            wanted = {i for i in judged if known[i][column]}
            # Of two equal files either may be dropped: what counts is that one of the pair is.
            chosen = {twin if (twin := self.duplicates.get(i, {}).get("twin_id")) in wanted else i for i in chosen}
            yield FilterScore(name, source, "dropped", len(chosen & wanted), len(chosen), len(wanted))
        yield self._selection_score(source, truth)

    def _selection_score(self, source: str, truth: Known) -> FilterScore:
        """Wanted is what shows the class of its query or, where labels are the teacher's, any class."""
        by_query = self.recipe.select.label == "query"
        right = chosen = wanted = 0
        for sample_id, sample in self.samples.items():
            if sample["source"] != source:
                continue
            for unit in self.decisions.get(sample_id, []):
                shown = truth.shown(sample_id, unit)
                if shown is None:
                    continue
                is_right = unit["keep"] and unit["label"] in shown
                chosen += unit["keep"]
                right += is_right
                # Who decides by hand may find a class that the rule could not.
                wanted += is_right or bool(shown & ({sample["query_label"]} if by_query else self.classes))
        return FilterScore(self.selection, source, "kept with the right label", right, chosen, wanted)


def _by_id(path: Path, columns: Sequence[str]) -> dict[str, Row]:
    return {row["sample_id"]: row for row in _rows(path, columns)}


def _rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a table; a text that many of them say, in this table or another, stands in memory once."""
    check_table(path, schema_of(path.stem), columns)
    for batch in read_batches(path, columns):
        for row in batch.to_pylist():
            yield {name: sys.intern(value) if isinstance(value, str) else value for name, value in row.items()}
