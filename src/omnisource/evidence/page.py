"""The evidence as a page: figures as JSON, a file a track; of all of them the tables and pictures of one page."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import torch

from omnisource.errors import UserError
from omnisource.evaluate.metrics import Interval
from omnisource.evidence.summary import Row, is_clear
from omnisource.evidence.tracks import TRACKS, Track
from omnisource.recipe import TARGET_ONLY
from omnisource.tables import write_atomic, write_json
from omnisource.workspace import versions

BEGIN, END = "<!-- figures: written by `omnisource bench effect` -->", "<!-- end of figures -->"
_LINE, _LETTER, _WIDTH, _RIGHT = 22, 7, 420, 70  # of a picture, pixels
_TICKS = 8


def results_path(folder: Path, track: str) -> Path:
    """The JSON file of a track's figures."""
    return folder / f"effect-{track}.json"


def write_results(rows: Sequence[Row], command: str, folder: Path) -> Path:
    """Writes the figures of one track, and how they were made."""
    path = results_path(folder, rows[0].track)
    facts = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {'GPU' if torch.cuda.is_available() else 'CPU'}",
        "versions": versions(),
    }
    write_json(path, facts | {"rows": [asdict(row) for row in rows]})
    return path


def write_page(folder: Path, page: Path) -> None:
    """Writes a picture for each track that `folder` has, and the figures between two marks of `page`.

    Raises:
        UserError: the folder has the figures of no track.
    """
    text = []
    for track in TRACKS:
        path = results_path(folder, track.name)
        if not path.exists():
            continue
        rows, facts = load_rows(path)
        picture = page.parent / "images" / f"evidence-{track.name}.svg"
        write_atomic(picture, forest(rows).encode())
        text.append(_track(track, rows, facts, f"images/{picture.name}"))
    if not text:
        raise UserError(
            f"{folder}: no effect-TRACK.json here; `omnisource bench effect` writes them, --results says where"
        )
    old = page.read_text() if page.exists() else f"# Evidence\n\n{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    after = rest.partition(END)[2]
    write_atomic(page, (before + BEGIN + "\n".join(["", *text]) + "\n" + END + after).encode())


def load_rows(path: Path) -> tuple[list[Row], Mapping[str, Any]]:
    """The rows of a JSON file that `write_results` wrote, and everything else that it says."""
    facts = json.loads(path.read_text())
    found = facts.pop("rows")
    intervals = [name for name in Row.__annotations__ if "interval" in name]
    rows = []
    for row in found:
        tuples = {name: tuple(row[name]) if row[name] else None for name in intervals}
        rows.append(Row(**row | tuples | {"cells": [tuple(cell) for cell in row.get("cells", [])]}))
    return rows, facts


def _track(track: Track, rows: Sequence[Row], facts: Mapping[str, Any], picture: str) -> str:
    first = rows[0]
    text = [
        f"\n## {track.name}: {track.about}\n",
        f"Command: `{facts['command']}`; {facts['date']}, torch {facts['versions']['torch']}. {first.folds} folds x "
        f"{first.seeds} seeds, {first.tested} test samples in all folds together.\n",
        f"![gains on {track.name}]({picture})\n",
    ]
    for question in dict.fromkeys(row.question for row in rows):
        text += [
            f"**{question[0].upper()}{question[1:]}**\n",
            "| trained on | top-1 | over the target alone | 95 % (folds x seeds; folds) | over another row | "
            "95 % (folds x seeds; folds) | kept a source (right) | paper |",
            "|---|---|---|---|---|---|---|---|",
            *(_row(row) for row in rows if row.question == question),
            "",
        ]
    return "\n".join(text)


def _row(row: Row) -> str:
    target = _gain(row.over_target, row.over_target_interval, row.over_target_interval_folds)
    other = " | "
    if row.against != TARGET_ONLY:
        other = _gain(row.gain, row.gain_interval, row.gain_interval_folds, f" over {row.against}")
    return f"| {row.variant} | {row.top1:.1f} | {target} | {other} | {row.kept} | {row.paper} |"


def _gain(gain: float | None, interval: Interval | None, by_folds: Interval | None, over: str = "") -> str:
    """Two columns: the gain, bold when it is clear of zero, and both intervals."""
    if gain is None:
        return " | "
    text = f"{gain:+.1f}{over}"
    shown = "; ".join(f"{low:+.1f} to {high:+.1f}" for low, high in filter(None, (interval, by_folds)))
    return f"{f'**{text}**' if is_clear(interval) else text} | {shown}"


def forest(rows: Sequence[Row]) -> str:
    """An SVG: every variant's gain as a dot with its interval over a scale, zero as a line."""
    shown = [row for row in rows if row.gain is not None and row.gain_interval is not None]
    ends = [0.0] + [end for row in shown for end in row.gain_interval or ()]
    low, high = min(ends) - 1, max(ends) + 1
    height = _LINE * (len(shown) + 3)
    names = [row.variant if row.against == TARGET_ONLY else f"{row.variant}  (over {row.against})" for row in shown]
    left = 20 + _LETTER * max(map(len, names), default=0)

    def x(points: float) -> float:
        return round(left + _WIDTH * (points - low) / (high - low), 1)

    width = left + _WIDTH + _RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" role="img">',
        "<title>Gains in points of top-1 with intervals of 95 %</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *(_tick(x(points), points, height - 2 * _LINE) for points in _scale(low, high)),
        f'<text x="{left + _WIDTH / 2}" y="{height - 6}" text-anchor="middle" fill="#52606d">'
        "gain in points of top-1, 95 %</text>",
    ]
    for number, (row, name) in enumerate(zip(shown, names, strict=True)):
        assert row.gain is not None and row.gain_interval is not None
        y = _LINE * (number + 1)
        colour = "#9aa5b1" if not row.significant else "#2563eb" if row.gain > 0 else "#ea580c"
        start, stop = (x(end) for end in row.gain_interval)
        parts += [
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end" fill="#1f2933">{escape(name)}</text>',
            f'<line x1="{start}" y1="{y}" x2="{stop}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{x(row.gain)}" cy="{y}" r="4.5" fill="{colour}"/>',
            f'<text x="{width - 8}" y="{y + 4}" text-anchor="end" fill="#1f2933">{row.gain:+.1f}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])


def _tick(x: float, points: int, bottom: int) -> str:
    grey = "#e4e7eb" if points else "#9aa5b1"
    return (
        f'<line x1="{x}" y1="8" x2="{x}" y2="{bottom}" stroke="{grey}"/>\n'
        f'<text x="{x}" y="{bottom + 15}" text-anchor="middle" fill="#52606d">{f"{points:+d}" if points else 0}</text>'
    )


def _scale(low: float, high: float) -> range:
    """Round numbers of points between `low` and `high`, zero among them, a handful at most."""
    step = next((step for step in (1, 2, 5, 10, 20) if (high - low) / step <= _TICKS), 50)
    return range(step * math.ceil(low / step), math.floor(high) + 1, step)
