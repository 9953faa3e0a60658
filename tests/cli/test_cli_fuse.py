"""`fuse` and `compare` on tables on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from omnisource.cli import app
from omnisource.errors import UserError
from omnisource.evaluate import Predictions, as_table, read_predictions, write_predictions


def table(path: Path, probs: list[list[float]], ids: str = "pqr") -> str:
    labels = np.array([0, 1, 0])[: len(ids)]
    made = Predictions("x", ["a", "b"], list(ids), labels, np.array(probs)[: len(ids)], [None] * len(ids), [], "")
    write_predictions(path, as_table(made), ["a", "b"])
    return str(path)


@pytest.fixture
def streams(tmp_path: Path) -> list[str]:
    return [
        table(tmp_path / "rgb.parquet", [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4]]),
        table(tmp_path / "flow.parquet", [[0.4, 0.6], [0.1, 0.9], [0.45, 0.55]]),
    ]


def test_fuse_prints_and_writes(streams: list[str], tmp_path: Path) -> None:
    out = tmp_path / "both.parquet"
    done = CliRunner().invoke(app, ["fuse", *streams, "--weights", "1:1", "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "top-5" not in done.output  # of two classes it says nothing
    assert "fused: top-1 100.00 %" in done.output.replace("%", " %").replace("  %", " %")
    np.testing.assert_allclose(read_predictions(out).probs[0], [0.65, 0.35], atol=1e-6)


def test_fuse_tells_the_top_5_of_many_classes(tmp_path: Path) -> None:
    probs = np.array([[0.05, 0.3, 0.25, 0.2, 0.15, 0.05]])
    for name in "ab":
        made = Predictions("x", list("uvwxyz"), ["p"], np.array([4]), probs, [None], [], "")
        write_predictions(tmp_path / name, as_table(made), list("uvwxyz"))
    done = CliRunner().invoke(app, ["fuse", str(tmp_path / "a"), str(tmp_path / "b")], catch_exceptions=False)
    assert done.output.count("top-1 0.00%") == done.output.count("top-5 100.00%") == 3


def test_fuse_sweeps_on_held_out_tables(streams: list[str], tmp_path: Path) -> None:
    held_out = [
        table(tmp_path / "rgb-val.parquet", [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4]], "uvw"),
        table(tmp_path / "flow-val.parquet", [[0.4, 0.6], [0.1, 0.9], [0.45, 0.55]], "uvw"),
    ]
    sweep = [part for path in held_out for part in ("--sweep-on", path)]
    done = CliRunner().invoke(app, ["fuse", *streams, *sweep], catch_exceptions=False)
    assert done.output.count("held out") == 21
    assert "weights 0." in done.output
    tested = [part for path in streams for part in ("--sweep-on", path)]
    with pytest.raises(UserError, match=r"rgb.parquet: is not held out: 3 of its 3 samples are fused here"):
        CliRunner().invoke(app, ["fuse", *streams, *tested], catch_exceptions=False)


def test_fuse_refuses(streams: list[str], tmp_path: Path) -> None:
    other = table(tmp_path / "other.parquet", [[0.4, 0.6], [0.1, 0.9]], "xy")
    with pytest.raises(UserError, match=r"rgb.parquet lists 3 test samples, .*other.parquet 2, 0 of them in common"):
        CliRunner().invoke(app, ["fuse", streams[0], other], catch_exceptions=False)
    with pytest.raises(UserError, match="another name"):
        CliRunner().invoke(app, ["fuse", *streams, "--out", streams[0]], catch_exceptions=False)
    with pytest.raises(UserError, match="two predictions tables"):
        CliRunner().invoke(app, ["fuse", streams[0]], catch_exceptions=False)


def test_compare(streams: list[str]) -> None:
    done = CliRunner().invoke(app, ["compare", *streams, "--json"], catch_exceptions=False)
    found = json.loads(done.output)
    assert (found["samples"], found["only_a"], found["only_b"]) == (3, 2, 1)
    text = CliRunner().invoke(app, ["compare", *streams], catch_exceptions=False).output
    assert f"A 66.67%  {streams[0]}" in text and f"B 33.33%  {streams[1]}" in text
