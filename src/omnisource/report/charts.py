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

INK, BLUE, GREY, ORANGE = "#1f2933", "#2563eb", "#9aa5b1", "#ea580c"
_PALETTE = [GREY, "#0ea5e9", "#10b981", ORANGE, "#8b5cf6", "#ef4444", BLUE]
_LONGEST = 40  # characters of a name beside a chart
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
        marker_color=[GREY if summary.baseline is None else BLUE for summary in summaries],
        opacity=0.35,
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
    figure.update_layout(**_LAYOUT, showlegend=False, height=340, yaxis_title="top-1 (%)", yaxis_range=[0, 100])
    figure.update_xaxes(type="category")
    return _html(figure)


def curves(logs: Sequence[tuple[str, Path]]) -> str:
    """Training loss over epochs, one line a run; light lines are single sources' losses."""
    figure = go.Figure()
    for number, (name, path) in enumerate(logs):
        rows = [row for row in read_log(path) if all(_finite(row.get(key)) for key in ("epoch", "loss"))]
        epochs, losses = [row["epoch"] for row in rows], [row["loss"] for row in rows]
        if epochs:
            color = _PALETTE[number % len(_PALETTE)]
            figure.add_scatter(x=epochs, y=smooth(losses), name=name, mode="lines", line={"color": color, "width": 2})
    figure.update_layout(**_LAYOUT, height=340, xaxis_title="epoch", yaxis_title="training loss (smoothed)")
    return _html(figure)


def per_class(classes: Sequence[str], runs: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """Accuracy of each class under each run, side by side."""
    figure = go.Figure()
    for number, (name, values) in enumerate(runs):
        shown = [None if value is None else 100 * value for value in values]
        color = _PALETTE[0] if number == 0 else _PALETTE[-1]
        figure.add_bar(x=_labels(classes), y=shown, name=name, marker_color=color)
    figure.update_layout(**_LAYOUT, height=340, yaxis_title="accuracy (%)", barmode="group", yaxis_range=[0, 100])
    figure.update_xaxes(type="category")
    return _html(figure)


def confusion(classes: Sequence[str], matrix: Sequence[Sequence[int]], title: str) -> str:
    """Rows: the true class; columns: what was predicted; shade: share of the row."""
    shares = [[cell / max(sum(row), 1) for cell in row] for row in matrix]
    few, names = len(classes) <= 30, _labels(classes)
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=names,
            y=names,
            text=[[str(cell) for cell in row] for row in matrix],
            texttemplate="%{text}" if few else None,
            colorscale="Blues",
            zmin=0,
            zmax=1,
            showscale=False,
            hovertemplate="%{y} seen as %{x}: %{text}<extra></extra>",
        )
    )
    figure.update_layout(**_LAYOUT, height=max(340, 160 + 22 * min(len(classes), 40)), title=title)
    every = {"dtick": 1} if few else {}  # else names would be left out as soon as they are close
    figure.update_yaxes(autorange="reversed", title="shown", type="category", **every)
    figure.update_xaxes(title="recognised as", type="category", **every)
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


def _labels(names: Sequence[str]) -> list[str]:
    """Names as a chart shows them: short, still different from each other, and without markup, which plotly obeys."""
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    alike = Counter(short)
    return [
        escape(name if alike[name] == 1 else f"{name} {number}", quote=False)
        for number, name in enumerate(short, start=1)
    ]


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _html(figure: go.Figure) -> str:
    # The script itself stands once in the page's head.
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True}
    )
    return html
