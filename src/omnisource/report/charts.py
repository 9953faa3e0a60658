"""The report's charts, as plotly figures drawn without any network."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from omnisource.evaluate import RunSummary
from omnisource.progress import printable

INK, BLUE, GREY, ORANGE = "#1f2933", "#2563eb", "#9aa5b1", "#ea580c"
_PALETTE = [GREY, "#0ea5e9", "#10b981", ORANGE, "#8b5cf6", "#ef4444", BLUE]
_DASHES = ["solid", "dash", "dot"]
_LONGEST = 40  # characters of a name beside a chart
_LETTER = 7  # pixels
_UPRIGHT_FROM = 8  # names below a chart
_MOST_POINTS = 500  # of a line: more than a screen shows
MOST_CLASSES = 40
"""Class names that a chart has room for."""
_LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
    "margin": {"l": 60, "r": 20, "t": 30, "b": 45},
}


def comparison(summaries: Sequence[RunSummary]) -> str:
    """Top-1 of every run: mean and 95 % interval, and each training as a dot."""
    figure = go.Figure()
    names = _labels([summary.run for summary in summaries])
    means = [100 * summary.top1 for summary in summaries]
    intervals = [summary.top1_t_interval or summary.top1_interval for summary in summaries]
    figure.add_bar(
        x=names,
        y=means,
        marker={"color": [GREY if summary.baseline is None else BLUE for summary in summaries], "opacity": 0.35},
        error_y={
            "array": [100 * high - mean for (_, high), mean in zip(intervals, means, strict=True)],
            "arrayminus": [mean - 100 * low for (low, _), mean in zip(intervals, means, strict=True)],
            "color": INK,
        },
        hovertemplate="%{x}: %{y:.1f} %<extra></extra>",
    )
    for name, summary in zip(names, summaries, strict=True):
        dots = [100 * top1 for top1 in summary.top1_each]
        figure.add_scatter(x=[name] * len(dots), y=dots, mode="markers", marker={"color": INK, "size": 6})
    # Names of many runs stand upright below the bars.
    height = 340 + (_LETTER * max(map(len, names)) if len(names) > _UPRIGHT_FROM else 0)
    figure.update_layout(**_LAYOUT, showlegend=False, height=height, yaxis_title="top-1 (%)", yaxis_range=[0, 100])
    figure.update_xaxes(type="category")
    return _html(figure)


def curves(logs: Sequence[tuple[str, Path]]) -> str:
    """Training loss over epochs, one line a run."""
    figure = go.Figure()
    for number, (name, path) in enumerate(logs):
        rows = [row for row in read_log(path) if all(_finite(row.get(key)) for key in ("epoch", "loss"))]
        epochs, losses = _thinned([row["epoch"] for row in rows]), _thinned(smooth([row["loss"] for row in rows]))
        line = {
            "color": _PALETTE[number % len(_PALETTE)],
            "dash": _DASHES[number // len(_PALETTE) % len(_DASHES)],
            "width": 2,
        }
        if epochs:
            figure.add_scatter(x=epochs, y=losses, name=_label(name), mode="lines", line=line)
    figure.update_layout(
        **_LAYOUT,
        height=max(340, 100 + 20 * len(logs)),  # the legend is whole
        xaxis_title="epoch",
        yaxis_title="training loss (smoothed)",
        showlegend=True,
    )
    return _html(figure)


def per_class(classes: Sequence[str], runs: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """Accuracy of each class under each run, side by side; of many classes those that `most_changed` names."""
    figure = go.Figure()
    shown = most_changed([values for _, values in runs])
    names = _labels(classes)
    for number, (run, values) in enumerate(runs):
        found = [values[n] for n in shown]
        figure.add_bar(
            y=[names[n] for n in shown],
            x=[None if value is None else 100 * value for value in found],
            name=_label(run),
            orientation="h",
            marker_color=_PALETTE[0] if number == 0 else _PALETTE[-1],
            hovertemplate="%{y}: %{x:.1f} %",
        )
    figure.update_layout(
        **_LAYOUT | {"margin": {"l": 60, "r": 20, "t": 50, "b": 45}},
        height=120 + len(shown) * (8 + 12 * len(runs)),
        barmode="group",
        xaxis_title="accuracy (%)",
        xaxis_range=[0, 100],
        legend={"orientation": "h", "y": 1, "yref": "paper", "yanchor": "bottom"},
        showlegend=True,
    )
    figure.update_yaxes(type="category", autorange="reversed", dtick=1)
    return _html(figure)


def most_changed(runs: Sequence[Sequence[float | None]]) -> list[int]:
    """The classes, by number, that a chart of `runs` has room for: those that differ most from the first to the last.

    Of a single run those that it recognises worst. In the order of the classes.
    """
    first: Sequence[float | None] = runs[0]
    last = runs[-1] if len(runs) > 1 else [1.0] * len(first)
    pairs = enumerate(zip(first, last, strict=True))
    known = [(n, abs(b - a)) for n, (a, b) in pairs if a is not None and b is not None]
    order = sorted(known, key=lambda found: -found[1])
    return sorted(n for n, _ in order[:MOST_CLASSES])


def confusion(classes: Sequence[str], matrix: Sequence[Sequence[int]], title: str) -> str:
    """Rows: the true class; columns: what was predicted; shade: share of the row.

    Columns have the number of their class, which stands behind the name of each row.
    """
    shares = [[round(cell / max(sum(row), 1), 3) or 0 for cell in row] for row in matrix]
    few, names = len(classes) <= 30, _labels(classes)
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=names,
            y=names,
            text=[[str(cell or "") for cell in row] for row in matrix] if few else None,
            texttemplate="%{text}" if few else None,
            colorscale="Blues",
            zmin=0,
            zmax=1,
            showscale=False,
            hovertemplate="%{y} seen as %{x}: %{z:.0%}<extra></extra>",
        )
    )
    figure.update_layout(**_LAYOUT, height=max(340, 160 + 22 * min(len(classes), MOST_CLASSES)), title=_label(title))
    ticks = list(range(0, len(classes), -(-len(classes) // MOST_CLASSES)))
    rows, columns = [f"{names[n]} · {n + 1}" for n in ticks], [str(n + 1) for n in ticks]
    figure.update_yaxes(autorange="reversed", title="shown", type="category", tickvals=ticks, ticktext=rows)
    figure.update_xaxes(title="recognised as", type="category", tickvals=ticks, ticktext=columns, tickangle=0)
    return _html(figure)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a training's log; a last line that was cut short by a crash is left out."""
    rows = []
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                rows.append(row)
    except OSError:
        return []
    return rows


def smooth(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """Exponential moving average, started unbiased."""
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return smoothed


def _thinned(values: list[float]) -> list[float]:
    """Some of the values, evenly spread, and the last one."""
    step = max(1, -(-len(values) // _MOST_POINTS))
    return values[:-1:step] + values[-1:]


def _labels(names: Sequence[str]) -> list[str]:
    """Names as a chart shows them: short, and still different from each other."""
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    alike = Counter(short)
    return [_label(name if alike[name] == 1 else f"{name} {number}") for number, name in enumerate(short, start=1)]


def _label(text: str) -> str:
    """A text without markup and control characters, which plotly or the page would obey."""
    return escape(printable(text), quote=False)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _html(figure: go.Figure) -> str:
    # The script itself stands once in the page's head.
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True}
    )
    return html
