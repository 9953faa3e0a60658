"""Where a sample came from: everything that the tables know about one file."""

from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from omnisource.collect.stage import open_state
from omnisource.errors import UserError
from omnisource.tables import read_table
from omnisource.workspace import Workspace

_TABLES = ("samples", "collected")


def provenance(workspace: Workspace, what: str) -> list[dict[str, Any]]:
    """Sample rows of an id, a path, a URL or a SHA-256, each with `finds`: every search result that led to the file.

    Raises:
        UserError: nothing in this workspace fits.
    """
    rows: dict[str, dict[str, Any]] = {}
    path = str(Path(what).expanduser().resolve()) if not what.startswith(("http://", "https://")) else what
    for name in _TABLES:
        if workspace.table(name).exists():
            fits = (pc.field("sample_id") == what) | (pc.field("uri") == path) | (pc.field("url") == what)
            if len(what) == 64:
                fits = fits | pc.match_substring(pc.field("uri"), f"/{what}.")
            for row in read_table(workspace.table(name), filters=fits).to_pylist():
                rows.setdefault(row["sample_id"], {name: value for name, value in row.items() if value is not None})
    if not rows:
        raise UserError(f"{what}: no sample id, path, URL or hash of this workspace ({workspace.root})")
    with open_state(workspace) as state:
        for row in rows.values():
            row["finds"] = state.finds_of(Path(row["uri"]).stem)
    return list(rows.values())
