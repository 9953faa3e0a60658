"""`score`: teachers look at web samples (paper, section 3.2); one row of the scores table a unit and teacher."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnisource.curate.engine import LOCAL, Engine, on_ray
from omnisource.curate.pieces import Piece, pieces
from omnisource.curate.samples import Sample, Samples
from omnisource.curate.teacher import Teacher, load_teacher, look_settings
from omnisource.errors import UserError
from omnisource.infer import Result, infer
from omnisource.media import Limits
from omnisource.networks import takes_frames
from omnisource.progress import meter, track
from omnisource.recipe import Recipe
from omnisource.recipe.curation import UNITS, Unit
from omnisource.tables import SCORES, Journal, database, merge, table_from_rows, view_table
from omnisource.workspace import StageRecord, Workspace

_KEYS = ("sample_id", "teacher", "unit", "start_s")

Row = dict[str, Any]


def score(recipe: Recipe, workspace: Workspace, engine: Engine = LOCAL) -> StageRecord:
    """Scores every web sample that is whole and no duplicate, with the recipe's teachers for its format.

    Of untrimmed videos the windows are scored when a planned student is 3D and the frames when one is 2D. A sample that
    can't be decoded gets rows with a reason. A killed stage goes on after the last samples written.

    Args:
        engine: where to work.

    Raises:
        UserError: a teacher is not trained yet, knows other classes, or is a file that does not fit.
    """
    classes = workspace.classes()
    wanted = units_by_teacher(recipe)
    stage, path = recipe.scored_by("score"), workspace.table(recipe.scored_by("scores"))

    def work(mark: str) -> Mapping[str, Any]:
        journals = []
        for name, units in wanted.items():
            teacher = load_teacher(recipe, workspace, name, classes)
            journal = Journal(workspace.partial(stage) / name, SCORES, _KEYS, mark)
            _score_all(recipe, workspace, teacher, units, journal, engine)
            journals.append(journal)
        merge(journals, path, SCORES)
        return _counts(path)

    return workspace.run_stage(
        stage,
        settings=score_settings(recipe, wanted),
        after=["ingest", "probe", "dedupe", *trained_here(recipe, wanted)],
        outputs=[path],
        work=work,
    )


def score_settings(recipe: Recipe, wanted: Mapping[str, Sequence[Unit]]) -> dict[str, Any]:
    """What the scores by these teachers depend on, beside the trainings."""
    settings = recipe.score.model_dump(mode="json", exclude={"batch", *UNITS})
    return settings | {
        "teachers": {name: {"units": units} | look_settings(recipe, name) for name, units in wanted.items()}
    }


def trained_here(recipe: Recipe, names: Iterable[str]) -> list[str]:
    """The stages that train those of the teachers that are trained here."""
    return [f"train-{recipe.training_of(name)}" for name in names if name in recipe.teachers]


def units_by_teacher(recipe: Recipe) -> dict[str, list[Unit]]:
    """Which teacher looks at which units: those of the formats that there are and the students that are planned.

    Raises:
        UserError: the recipe has no teacher of a name that `score` gives such a unit.
    """
    web = [recipe.sources[name] for name in recipe.web_sources]
    formats = {source.format for source in web}
    frames = [takes_frames(recipe.student_of(run)) for run in recipe.planned_runs()] if web else []
    needed: list[Unit] = []
    if "image" in formats:
        needed.append("image")
    if "clip" in formats:
        needed.append("clip")
    if "untrimmed" in formats:
        needed += ["window"] if not all(frames) else []
        needed += ["frame"] if any(frames) else []
    wanted: dict[str, list[Unit]] = {}
    for unit in needed:
        for name in getattr(recipe.score, unit):
            if name not in recipe.teachers and name not in recipe.foreign_teachers:
                have = [*recipe.teachers, *recipe.foreign_teachers]
                raise UserError(
                    f"score.{unit} names the teacher '{name}', teachers are: {', '.join(have) or 'none'}; describe "
                    f"'{name}' below `teachers`, or name another in score.{unit}"
                )
            wanted.setdefault(name, []).append(unit)
    return wanted


def _score_all(
    recipe: Recipe, workspace: Workspace, teacher: Teacher, units: Sequence[Unit], journal: Journal, engine: Engine
) -> None:
    """Scores what the journal does not hold yet."""
    formats = sorted({"untrimmed" if unit in ("window", "frame") else unit for unit in units})
    samples, done = Samples(workspace, "web", formats, unique=True), journal.done()
    what, left = f"score by {teacher.name}", len(samples) - len(done)
    if engine.kind == "local":
        todo = (sample for sample in samples if sample.sample_id not in done)
        journal.fill(track(score_samples(recipe, teacher, units, todo, engine.workers), left, what))
        return
    work = samples.table(without=done)
    with meter(what, left) as bar:
        for table in on_ray(engine, work, _BlockScorer, recipe, teacher, tuple(units), engine.workers):
            journal.append_table(table)
            bar.advance(pc.count_distinct(table["sample_id"]).as_py())


class _BlockScorer:
    """Scores blocks of samples in an actor of a cluster."""

    def __init__(self, recipe: Recipe, teacher: Teacher, units: Sequence[Unit], workers: int | None) -> None:
        self._recipe, self._teacher, self._units, self._workers = recipe, teacher, units, workers

    def __call__(self, block: pa.Table) -> pa.Table:
        samples = (Sample(**row) for row in block.to_pylist())
        groups = score_samples(self._recipe, self._teacher, self._units, samples, self._workers)
        return table_from_rows((row for group in groups for row in group), SCORES)


def score_samples(
    recipe: Recipe, teacher: Teacher, units: Sequence[Unit], samples: Iterable[Sample], workers: int | None = None
) -> Iterator[list[Row]]:
    """For each sample, in order, the rows of its units in the scores table."""
    requests = (request for sample in samples for request in pieces(sample, units, teacher.look, recipe.score))
    limits = recipe.probe.limits
    results = infer(
        teacher.network,
        teacher.meta,
        requests,
        size=teacher.meta.size,
        short_side=teacher.short_side,
        batch=recipe.score.batch,
        workers=workers,
        device=teacher.device,
        precision=teacher.precision,
        threads=teacher.threads,
        features=recipe.score.features,
        limits=Limits.of(limits),
        memory_bytes=limits.memory_bytes,
    )
    rows: list[Row] = []
    for result in results:
        rows += _rows(result, teacher, recipe)
        piece = result.request.key
        assert isinstance(piece, Piece)
        if piece.last:
            yield rows
            rows = []


def _rows(result: Result, teacher: Teacher, recipe: Recipe) -> Iterator[Row]:
    """One row a span; the views of a span are averaged."""
    piece = result.request.key
    assert isinstance(piece, Piece)
    base = {"sample_id": piece.sample.sample_id, "teacher": teacher.name}
    if result.logits is None:
        for span in piece.spans:
            where = {"unit": span.unit, "start_s": span.start_s, "end_s": span.end_s}
            yield base | where | {"status": "dropped", "reason": result.reason}
        return
    probs = result.probs[:, list(teacher.order)]
    probs = probs.reshape(len(piece.spans), -1, probs.shape[1]).mean(axis=1)
    best = np.argsort(-probs, axis=1, kind="stable")[:, : recipe.score.top_k]
    entropy = -(probs * np.log(np.maximum(probs, 1e-12))).sum(axis=1)
    features = None
    if result.features is not None:
        features = result.features.reshape(len(piece.spans), -1, result.features.shape[1]).mean(axis=1)
    for number, span in enumerate(piece.spans):
        yield base | {
            "unit": span.unit,
            "start_s": span.start_s,
            "end_s": span.end_s,
            "top_classes": best[number].tolist(),
            "top_probs": probs[number, best[number]].tolist(),
            "query_prob": None if piece.sample.query is None else float(probs[number, piece.sample.query]),
            "entropy": float(entropy[number]),
            "probs": probs[number].tolist() if recipe.score.probs else None,
            "feature": None if features is None else features[number].astype(np.float16),
            "status": "ok",
        }


def _counts(path: Path) -> dict[str, Any]:
    """Scored and failed units of each kind and teacher."""
    with database(path.parent) as db:
        view_table(db, "scores", path)
        groups = db.execute("SELECT teacher, unit, status, count(*) FROM scores GROUP BY ALL ORDER BY ALL").fetchall()
    counts: dict[str, Any] = {"rows": sum(row[-1] for row in groups), "failed": 0, "units": {}}
    for teacher, unit, status, count in groups:
        counts["units"].setdefault(teacher, {}).setdefault(unit, {})[status] = count
        counts["failed"] += count * (status != "ok")
    return counts
