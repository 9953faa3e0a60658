"""Human decisions: a CSV file whose rows win over every rule, in every selection."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa

from omnisource.errors import UserError
from omnisource.recipe.curation import Unit

OVERRIDES = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("unit", pa.string()),  # null: every unit of the sample
        pa.field("start_s", pa.float64()),  # null: all of the sample
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("label", pa.string()),  # null: the label that the rule gives
    ]
)
_YES, _NO = {"1", "true", "yes", "keep"}, {"0", "false", "no", "drop"}
_MAX_BYTES = 1 << 30


def read_overrides(path: Path, classes: Sequence[str]) -> pa.Table:
    """Reads human decisions: a CSV with the columns sample_id and keep, and if wanted start_s, unit and label.

    A row without start_s decides about the whole sample; a row with one about the window or frame that begins
    there. When a file decides twice about one thing the later row wins, so a program can simply append.

    Raises:
        UserError: names the file, the line and what is wrong in it.
    """
    rows: dict[tuple[str, str | None, float | None], dict[str, Any]] = {}
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than {_MAX_BYTES} bytes, so not a file of human decisions")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"sample_id", "keep"} - set(reader.fieldnames or [])
            if missing:
                raise UserError(
                    f"{path}:1: no column '{min(missing)}'; overrides have sample_id, keep, start_s, unit, label"
                )
            for row in reader:
                read = _row(
                    {
                        key: (value or "").strip()
                        for key, value in row.items()
                        if isinstance(key, str) and not isinstance(value, list)
                    },
                    f"{path}:{reader.line_num}",
                    classes,
                )
                rows[str(read["sample_id"]), read["unit"], read["start_s"]] = read
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: overrides cannot be read ({error}); mend or remove select.overrides") from None
    return pa.Table.from_pylist(list(rows.values()), schema=OVERRIDES)


def _row(row: dict[str, str], where: str, classes: Sequence[str]) -> dict[str, Any]:
    keep = row["keep"].lower()
    if not row["sample_id"]:
        raise UserError(f"{where}: no sample_id")
    if keep not in _YES | _NO:
        raise UserError(f"{where}: keep is '{row['keep']}'; write yes or no")
    label, unit, start = row.get("label") or None, row.get("unit") or None, row.get("start_s") or None
    if label is not None and label not in classes:
        raise UserError(f"{where}: '{label}' is not in the class list")
    if unit is not None and unit not in get_args(Unit):
        raise UserError(f"{where}: unit is '{unit}'; write one of {', '.join(get_args(Unit))}, or nothing")
    try:
        start_s = None if start is None else float(start)
    except ValueError:
        start_s = math.nan
    if start_s is not None and not math.isfinite(start_s):
        raise UserError(f"{where}: start_s is '{start}'; write seconds, or nothing")
    return {"sample_id": row["sample_id"], "unit": unit, "start_s": start_s, "keep": keep in _YES, "label": label}
