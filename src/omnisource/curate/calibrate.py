"""Calibration: what a teacher's probabilities are worth on target samples that no training saw (ours, not the paper's).

`calibrate` scores held-out target samples with the teachers, as if they were web samples; `select` finds with these
rows one temperature for each teacher and unit, and for each class the threshold above which the teacher is right often
enough.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnisource.curate.decide import Threshold
from omnisource.curate.drawn import as_array, drawn_probs
from omnisource.curate.engine import LOCAL, Engine
from omnisource.curate.samples import Sample, Samples
from omnisource.curate.score import score_samples, score_settings, units_by_teacher
from omnisource.curate.teacher import load_teacher
from omnisource.curate.units import units
from omnisource.errors import UserError
from omnisource.progress import track
from omnisource.recipe import Recipe, Select
from omnisource.recipe.curation import Unit
from omnisource.tables import SCORES, Journal, database, merge, view_table
from omnisource.train import target_parts
from omnisource.workspace import StageRecord, Workspace

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

NEVER = 2.0  # a threshold that no probability reaches
_KEYS = ("sample_id", "teacher", "unit", "start_s")
_STILL = ("image", "frame")  # units of one picture
_HALVINGS = 60  # of the interval in which a temperature is sought,
_RANGE = (0.02, 50.0)  # this one,
_MATCHED = (0.4, 20.0)  # or this one: a teacher that is always right there must not silence the query on the web


def calibrate(recipe: Recipe, workspace: Workspace, engine: Engine = LOCAL) -> StageRecord:
    """Writes the table `calibration`: SCORES of the target's held-out samples; `query_prob` is that of the true class.

    Held out is the target's split `select.calibrate.split`: `val`, on which nothing is trained; or `cross`, the
    training samples, each judged by a teacher that was trained without its part of them (`train_judge`). A sample
    stands for every unit that a teacher scores: a video's 1-FPS frames for images and frames, the video for clips and
    windows.

    Raises:
        UserError: the target has no such samples, or a teacher is not there.
    """
    wanted, classes = units_by_teacher(recipe), workspace.classes()
    split = recipe.select.calibrate.split
    fully = recipe.model_copy(update={"score": recipe.score.model_copy(update={"probs": True, "features": False})})
    stage, path = recipe.scored_by("calibrate"), workspace.table(recipe.scored_by("calibration"))
    parts = target_parts(recipe, workspace) if split == "cross" and any(n in recipe.teachers for n in wanted) else []

    def judges(name: str) -> Sequence[int | None]:
        """By part left out, the trainings of a teacher that judge; None is the teacher itself, for all samples."""
        return range(len(parts)) if parts and name in recipe.teachers else [None]

    def work(mark: str) -> Mapping[str, Any]:
        samples = list(Samples(workspace, "target", splits=["train" if split == "cross" else split]))
        if not samples:
            need = "" if recipe.select.calibrate.held_out else "`omnisource select` needs none as select is set; else "
            raise UserError(
                f"select.calibrate needs held-out target samples, but none is in the split '{split}'; {need}"
                "give a target source `split` or `val` conditions, or set select.calibrate.split: cross"
            )
        journals = []
        for name, kinds in wanted.items():
            for part in judges(name):
                shown = samples if part is None else [sample for sample in samples if sample.sample_id in parts[part]]
                journal = Journal(workspace.partial(stage) / recipe.training_of(name, part), SCORES, _KEYS, mark)
                if not journal.done("teacher"):
                    teacher = load_teacher(recipe, workspace, name, classes, part)
                    told = f"calibrate {name}" + ("" if part is None else f", part {part + 1} of {len(parts)}")
                    journal.append(
                        row | {"unit": unit}
                        for kind in (_STILL, ("clip", "window"))
                        if (mine := [unit for unit in kinds if unit in kind])
                        for rows in track(
                            score_samples(fully, teacher, *_shown(shown, mine), engine.workers), len(shown), told
                        )
                        for row in rows
                        for unit in mine
                    )
                journals.append(journal)
        merge(journals, path, SCORES)
        return {"samples": len(samples), "rows": pq.read_metadata(path).num_rows, "split": split}

    trained = [f"train-{recipe.training_of(n, part)}" for n in wanted if n in recipe.teachers for part in judges(n)]
    return workspace.run_stage(
        stage,
        settings=score_settings(fully, wanted) | {"split": split},
        after=["ingest", "probe", *trained],
        outputs=[path],
        work=work,
    )


def _shown(samples: Sequence[Sample], units: Sequence[Unit]) -> tuple[list[Unit], list[Sample]]:
    """Target samples as what a teacher of these units is shown."""
    if units[0] in _STILL:
        return ["image", "frame"], [s if s.format == "image" else replace(s, format="untrimmed") for s in samples]
    return ["clip"], [replace(s, format="clip") for s in samples if s.format != "image"]


@dataclass(frozen=True)
class Fitted:
    """What held-out samples say about the teachers."""

    temperatures: dict[tuple[str, str], float]
    """(teacher, unit) -> T."""
    thresholds: list[Threshold]
    measured: dict[str, Any]
    """For the stage's record."""


def fit(recipe: Recipe, workspace: Workspace) -> Fitted:
    """Fits what `select.calibrate` asks for to the table `calibration`, and matches it with the table `scores`."""
    settings, classes = recipe.select.calibrate, workspace.classes()
    temperatures: dict[tuple[str, str], float] = {}
    if isinstance(settings.temperature, float):
        for name, kinds in units_by_teacher(recipe).items():
            temperatures |= dict.fromkeys([(name, unit) for unit in kinds], settings.temperature)
    if not settings.held_out:
        return Fitted(temperatures, [], {})
    scores, samples = workspace.table(recipe.scored_by("calibration")), workspace.table("samples")
    measured: dict[str, Any] = {}
    if settings.temperature is True or settings.temperature == "matched":
        for (teacher, unit), (probs, truth) in _held_out(scores, samples, classes).items():
            if settings.temperature is True:
                found = _fitted(probs, truth)
            else:
                found = _matched(probs, truth, _of_the_web(recipe, workspace, teacher, unit))
            temperatures[teacher, unit] = found["T"]
            measured.setdefault("temperatures", {}).setdefault(teacher, {})[unit] = {
                key: round(value, 4) for key, value in found.items()
            }
    thresholds: list[Threshold] = []
    if settings.precision is not None:
        with units(scores, samples, classes, True, temperatures) as db:
            thresholds = list(_precise(db, recipe.select, classes))
        measured["thresholds"] = {t.unit: {} for t in thresholds}
        for t in thresholds:
            measured["thresholds"][t.unit][t.label] = round(t.value, 4) if t.value < NEVER else "never"
    return Fitted(temperatures, thresholds, measured)


def _fitted(probs: F64, truth: I64) -> dict[str, float]:
    value = fit_temperature(probs, truth)
    return {
        "T": value,
        "samples": len(truth),
        "nll_before": negative_log_likelihood(probs, truth, 1.0),
        "nll_after": negative_log_likelihood(probs, truth, value),
    }


def _of_the_web(recipe: Recipe, workspace: Workspace, teacher: str, unit: str) -> F64:
    """Probabilities (N, classes) of web units that a teacher scored."""
    scores = workspace.table(recipe.scored_by("scores"))
    with database(scores.parent) as db:
        view_table(db, "scores", scores)
        mine = {"teacher": teacher, "unit": unit}
        return drawn_probs(db, "scores", "teacher = $teacher AND unit = $unit", mine, len(workspace.classes()))


def _matched(probs: F64, truth: I64, web: F64) -> dict[str, float]:
    right = float((probs.argmax(1) == truth).mean())
    value = match_temperature(web, right) if len(web) else 1.0
    return {
        "T": value,
        "samples": len(truth),
        "right": right,
        "web": len(web),
        "sure_before": mean_confidence(web, 1.0) if len(web) else 0.0,
        "sure_after": mean_confidence(web, value) if len(web) else 0.0,
    }


def match_temperature(probs: F64, accuracy: float) -> float:
    """The T for which the largest of p^(1/T), scaled to sum to 1, is on average `accuracy`, or the nearest in range.

    A teacher that hardly knows the web's classes is as sure of the web as one that does; on held-out samples it is
    seen how often it is right, and it gets no more confidence than that, nor less.

    Args:
        probs: (N, classes) of web units.
        accuracy: share of held-out samples of which the teacher's best class is right.
    """
    low, high = map(math.log, _MATCHED)
    for _ in range(_HALVINGS):  # the mean confidence falls as T grows
        middle = (low + high) / 2
        if mean_confidence(probs, math.exp(middle)) >= accuracy:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def mean_confidence(probs: F64, temperature: float) -> float:
    """Mean over samples of the probability of the best class; arguments as for `fit_temperature`."""
    return float(_powers(np.log(np.maximum(probs, 1e-12)), 1 / temperature).max(1).mean())


def fit_temperature(probs: F64, truth: I64) -> float:
    """The T for which p^(1/T), scaled to sum to 1, gives `truth` the highest likelihood (Guo et al. 2017).

    Args:
        probs: (N, classes).
        truth: (N,) places in the class list.
    """
    logs = np.log(np.maximum(probs, 1e-12))
    right = logs[np.arange(len(truth)), truth]
    low, high = (math.log(1 / value) for value in reversed(_RANGE))
    for _ in range(_HALVINGS):  # the likelihood is concave in 1/T: where its slope changes sign it is highest
        middle = (low + high) / 2
        powers = _powers(logs, math.exp(middle))
        if float(((powers * logs).sum(1) - right).mean()) <= 0:
            low = middle
        else:
            high = middle
    return math.exp(-(low + high) / 2)


def negative_log_likelihood(probs: F64, truth: I64, temperature: float) -> float:
    """Mean over samples, in nats; arguments as for `fit_temperature`."""
    powers = _powers(np.log(np.maximum(probs, 1e-12)), 1 / temperature)
    return float(-np.log(np.maximum(powers[np.arange(len(truth)), truth], 1e-12)).mean())


def _powers(logs: F64, power: float) -> F64:
    raised = np.exp(power * (logs - logs.max(1, keepdims=True)))
    scaled: F64 = raised / raised.sum(1, keepdims=True)
    return scaled


def precise_threshold(confidence: F64, right: npt.NDArray[np.bool_], precision: float, least: int) -> float:
    """The lowest threshold above which at least `precision` of the samples, and `least` of them, are right; else NEVER.

    Args:
        confidence: (N,) probabilities.
        right: (N,) whether the teacher is right.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    count = np.arange(1, len(ranked) + 1)
    last_of_equals = np.append(ranked[1:] < ranked[:-1], True)[: len(ranked)]
    good = last_of_equals & (count >= least) & (np.cumsum(right[order]) >= precision * count - 1e-9)
    return float(ranked[np.flatnonzero(good)[-1]]) if good.any() else NEVER


def _precise(db: duckdb.DuckDBPyConnection, select: Select, classes: Sequence[str]) -> Iterator[Threshold]:
    """Thresholds of every class in units of every kind."""
    settings = select.calibrate
    assert settings.precision is not None
    rows = db.sql(
        """SELECT unit, top, top_prob, probs, unanimous, truth.place AS truth FROM units JOIN samples USING (sample_id)
        JOIN classes AS truth ON truth.name = samples.label WHERE units.status = 'ok'"""
    ).to_arrow_table()
    kinds = rows["unit"].to_numpy(zero_copy_only=False)
    probs = rows["probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, len(classes))
    truth, top = (rows[name].to_numpy() for name in ("truth", "top"))
    # Only what teachers agree on is kept. A kind in which they never agree has thresholds all the same: NEVER.
    heard = rows["unanimous"].to_numpy() | (not select.unanimous)
    for kind in np.unique(kinds.astype(str)):
        mine = np.flatnonzero((kinds == kind) & heard)
        # Of the rule `query` every sample is a candidate for every class; of the others only for the teacher's best.
        chosen = {place: mine if select.rule == "query" else mine[top[mine] == place] for place in range(len(classes))}
        sure = {place: probs[rows_, place].astype(np.float64) for place, rows_ in chosen.items()}
        right = {place: truth[rows_] == place for place, rows_ in chosen.items()}
        of_all = precise_threshold(
            np.concatenate(list(sure.values())),
            np.concatenate(list(right.values())),
            settings.precision,
            settings.min_samples,
        )
        for place, label in enumerate(classes):
            value = of_all
            if len(sure[place]) >= settings.min_samples:
                value = precise_threshold(sure[place], right[place], settings.precision, settings.min_samples)
            yield Threshold(None, str(kind), label, value)


def _held_out(scores: Path, samples: Path, classes: Sequence[str]) -> dict[tuple[str, str], tuple[F64, I64]]:
    """(teacher, unit) -> probabilities (N, classes) and true classes (N,) of the held-out samples."""
    with database(scores.parent) as db:
        db.register("classes", pa.table({"place": range(len(classes)), "name": pa.array(classes, pa.string())}))
        view_table(db, "scores", scores)
        view_table(db, "samples", samples)
        table = db.sql(
            """SELECT teacher, unit, probs, place FROM scores JOIN samples USING (sample_id)
            JOIN classes ON name = label WHERE scores.status = 'ok' ORDER BY sample_id, scores.start_s"""
        ).to_arrow_table()
    found = {}
    for row in table.group_by(["teacher", "unit"]).aggregate([]).to_pylist():
        mine = table.filter((pc.field("teacher") == row["teacher"]) & (pc.field("unit") == row["unit"]))
        found[row["teacher"], row["unit"]] = (as_array(mine["probs"], len(classes)), mine["place"].to_numpy())
    return found
