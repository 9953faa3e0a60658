"""Reading and writing predictions tables: one row a test sample (view -1) and one a view of it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnisource.errors import UserError
from omnisource.evaluate.metrics import Floats, Ints
from omnisource.tables import PREDICTIONS, check_table, digest_table, read_parquet, table_from_rows, write_table

AVERAGE = -1  # the `view` of a row that averages all views
_META = b"omnisource"


@dataclass(frozen=True)
class Unscored:
    """A sample of the test list that could not be scored."""

    sample_id: str
    label: str | None
    group: str | None
    reason: str


@dataclass(frozen=True)
class Predictions:
    """What one model says about one test list, averaged over views."""

    name: str  # of its file, for messages
    classes: list[str]
    sample_ids: list[str]  # of the scored samples, sorted
    labels: Ints  # (N,)
    probs: Floats  # (N, K)
    groups: list[str | None]
    failed: list[Unscored]
    list_hash: str  # of the whole test list, scored or not: sample ids and labels

    def take(self, index: Sequence[int] | Ints) -> "Predictions":
        """The same predictions for some of the samples, in their order."""
        return replace(
            self,
            sample_ids=[self.sample_ids[n] for n in index],
            labels=self.labels[index],
            probs=self.probs[index],
            groups=[self.groups[n] for n in index],
        )


def write_predictions(path: Path, table: pa.Table, classes: Sequence[str]) -> None:
    """Writes a predictions table together with the class list that its `probs` follow."""
    write_table(path, table.replace_schema_metadata({_META: json.dumps({"classes": list(classes)})}))


def read_predictions(path: Path) -> Predictions:
    """Reads the averages (view -1) of a predictions table.

    Raises:
        UserError: not a predictions table, a label outside its classes, rows of different length.
    """
    if missing := set(PREDICTIONS.names) - set(_column_names(path)):
        raise UserError(f"{path}: not a predictions table: it lacks the columns {', '.join(sorted(missing))}")
    check_table(path, PREDICTIONS)
    table = read_parquet(path, filters=pc.field("view") == AVERAGE)
    try:
        classes = json.loads((table.schema.metadata or {})[_META])["classes"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise TypeError
    except (KeyError, ValueError, TypeError, RecursionError):
        raise UserError(f"{path}: its class list is missing; make it again with `omnisource test`") from None
    table = table.sort_by("sample_id")
    ids = table["sample_id"].to_pylist()
    if len(set(ids)) != len(ids):
        raise UserError(f"{path}: {len(ids) - len(set(ids))} samples stand in it twice; make it again")
    scored = table.filter(pc.equal(table["status"], "ok"))
    dropped = table.filter(pc.not_equal(table["status"], "ok"))
    return Predictions(
        name=str(path),
        classes=classes,
        sample_ids=scored["sample_id"].to_pylist(),
        labels=_label_indices(scored["label"].to_pylist(), classes, path),
        probs=_matrix(scored["probs"], len(classes), path),
        groups=scored["group"].to_pylist(),
        failed=[Unscored(**row) for row in dropped.select(["sample_id", "label", "group", "reason"]).to_pylist()],
        list_hash=list_hash(table),
    )


def list_hash(table: pa.Table) -> str:
    """The identity of a test list: a hash of its sample ids and labels, in sorted order."""
    return digest_table(table.select(["sample_id", "label"]).sort_by("sample_id"))


def as_table(predictions: Predictions) -> pa.Table:
    """The averages as a table, for instance after a fusion."""
    best = predictions.probs.argmax(axis=1)
    rows: list[dict[str, Any]] = [
        {
            "sample_id": sample_id,
            "view": AVERAGE,
            "label": predictions.classes[predictions.labels[n]],
            "group": predictions.groups[n],
            "predicted": predictions.classes[best[n]],
            "probs": predictions.probs[n].astype(np.float32),
            "status": "ok",
        }
        for n, sample_id in enumerate(predictions.sample_ids)
    ]
    rows += [{**asdict(unscored), "view": AVERAGE, "status": "dropped"} for unscored in predictions.failed]
    return table_from_rows(rows, PREDICTIONS)


def align(tables: Sequence[Predictions]) -> list[Predictions]:
    """Brings predictions of several models about one test list to the same samples: those that all of them scored.

    Raises:
        UserError: other classes or another test list, with the counts.
    """
    first = tables[0]
    for other in tables[1:]:
        if other.classes != first.classes:
            common = len(set(first.classes) & set(other.classes))
            raise UserError(
                f"{first.name} has {len(first.classes)} classes, {other.name} {len(other.classes)}, {common} of them "
                "in common; only predictions with the same class list, in the same order, belong together"
            )
        if other.list_hash != first.list_hash:
            ours, theirs = _listed(first), _listed(other)
            raise UserError(
                f"{first.name} lists {len(ours)} test samples, {other.name} {len(theirs)}, {len(ours & theirs)} of "
                "them in common; test both on the same list"
            )
    shared = set(first.sample_ids).intersection(*(other.sample_ids for other in tables[1:]))
    if not shared:
        scored = ", ".join(f"{table.name} {len(table.sample_ids)}" for table in tables)
        raise UserError(f"none of {len(_listed(first))} test samples was scored in every table (scored: {scored})")
    return [table.take([n for n, name in enumerate(table.sample_ids) if name in shared]) for table in tables]


def _listed(predictions: Predictions) -> set[str]:
    return {*predictions.sample_ids, *(unscored.sample_id for unscored in predictions.failed)}


def _column_names(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such predictions table; `omnisource test` writes tables/predictions-RUN-SEED.parquet in the "
            "workspace"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a Parquet table ({' '.join(str(error).split())})") from None


def _label_indices(labels: Sequence[str | None], classes: Sequence[str], path: Path) -> Ints:
    index = {name: n for n, name in enumerate(classes)}
    if unknown := sorted({str(label) for label in labels if label not in index}):
        raise UserError(f"{path}: {len(unknown)} labels are not among its {len(classes)} classes, e.g. '{unknown[0]}'")
    return np.array([index[str(label)] for label in labels], np.int64)


def _matrix(column: pa.ChunkedArray, classes: int, path: Path) -> Floats:
    lists = column.combine_chunks()
    if not pc.all(pc.equal(pc.fill_null(pc.list_value_length(lists), -1), classes), min_count=0).as_py():
        raise UserError(f"{path}: some samples do not have {classes} probabilities; make it again")
    matrix: Floats = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(lists), classes)
    if not (matrix >= 0).all() or not np.isfinite(matrix).all():  # the first finds NaN, too
        raise UserError(f"{path}: some of its probabilities are no probabilities; make it again")
    return matrix
