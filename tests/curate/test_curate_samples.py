"""Samples that are still in, and how many frames a piece of one has."""

from pathlib import Path
from typing import Any

import pytest

from omnisource.curate.samples import Sample, Samples, frame_at, frames_between
from omnisource.tables import DUPLICATES, PROBE, SAMPLES, table_from_rows, write_table
from omnisource.workspace import Workspace, open_workspace


def sample(fps: float | None = 10.0, num_frames: int | None = 100, duration_s: float | None = 99.0) -> Sample:
    return Sample("a", "web", "clip", "a.mp4", None, None, None, 64, 48, fps, False, num_frames, duration_s)


@pytest.mark.parametrize(("seconds", "frame"), [(0.0, 0), (0.01, 1), (0.1, 1), (0.7, 7), (2.05, 21)])
def test_the_first_frame_at_or_after_a_time(seconds: float, frame: int) -> None:
    assert frame_at(sample(), seconds) == frame
    assert frame_at(sample(fps=None), 0.4 * seconds) == frame, "25 a second where the rate is not known"


@pytest.mark.parametrize(
    ("start_s", "end_s", "frames"),
    [
        (0.0, None, 100),
        (2.0, None, 80),
        (2.0, 5.0, 30),
        (2.05, 5.0, 29),
        (9.5, 20.0, 5),
        (20.0, 30.0, 1),
        (3.0, 3.0, 1),
    ],
)
def test_frames_of_a_piece(start_s: float, end_s: float | None, frames: int) -> None:
    assert frames_between(sample(), start_s, end_s) == frames
    assert frames_between(sample(num_frames=None, duration_s=10.0), start_s, end_s) == frames


def test_frames_of_a_file_of_which_little_is_known() -> None:
    assert frames_between(sample(fps=None, num_frames=None, duration_s=4.0), 0.0, None) == 100
    assert frames_between(sample(num_frames=None, duration_s=None), 0.0, None) == 1


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Web samples c, b, a of two sources; target samples of which one has no file any more."""
    web: dict[str, Any] = {"role": "web", "format": "clip", "query_label": "wave", "label": "jump", "status": "ok"}
    rows = [web | {"sample_id": name, "source": source} for name, source in (("c", "x"), ("b", "x"), ("a", "y"))]
    rows += [
        {"sample_id": name, "source": "target", "role": "target", "format": form, "label": "jump", "split": split}
        | {"query_label": "wave", "status": status, "start_s": 1.0, "end_s": 2.0}
        for name, form, split, status in (
            ("t", "clip", "train", "ok"),
            ("u", "image", "train", "ok"),
            ("v", "clip", "val", "ok"),
            ("w", "clip", "train", "dropped"),
            ("z", "clip", "train", "ok"),
        )
    ]
    probe = [{"sample_id": row["sample_id"], "status": "dropped" if row["sample_id"] == "z" else "ok"} for row in rows]
    probe[0] |= {"width": 64, "height": 48, "fps": 10.0, "variable_fps": True, "num_frames": 100, "bytes": 7}
    twins = [{"sample_id": name, "status": "dropped" if name == "b" else "ok"} for name in "abc"]
    with open_workspace(tmp_path) as workspace:
        for name, schema, table in (
            ("samples", SAMPLES, [row | {"uri": f"/{row['sample_id']}"} for row in rows]),
            ("probe", PROBE, probe),
            ("duplicates", DUPLICATES, twins),
        ):
            write_table(workspace.table(name), table_from_rows(table, schema))
        workspace.run_stage("ingest", settings={}, after=[], outputs=[], work=lambda _: {"classes": ["jump", "wave"]})
    return workspace


def test_samples_by_role_format_split_and_without_duplicates(workspace: Workspace) -> None:
    def found(*args: Any, **options: Any) -> str:
        samples = Samples(workspace, *args, **options)
        names = [sample.sample_id for sample in samples]
        assert len(samples) == len(names) and samples.table()["sample_id"].to_pylist() == names
        return "".join(names)

    assert found("web") == "bca", "by source, then by id"
    assert found("web", unique=True) == "ca"
    assert found("target") == "tuv", "w is dropped, and z has no whole file"
    assert found("target", splits=["train"]) == "tu" and found("target", formats=["image"]) == "u"
    assert Samples(workspace, "web").table(without={"c"})["sample_id"].to_pylist() == ["b", "a"]


def test_a_sample_is_what_both_tables_say_and_zero_where_they_do_not(workspace: Workspace) -> None:
    _, known, unknown = Samples(workspace, "web")
    assert known == Sample("c", "x", "clip", "/c", 1, None, None, 64, 48, 10.0, True, 100, None, 7)
    assert unknown == Sample("a", "y", "clip", "/a", 1, None, None, 0, 0, None, False, None, None, None)
    first = next(iter(Samples(workspace, "target")))
    assert (first.query, first.start_s, first.end_s) == (0, 1.0, 2.0), "a target sample's class is its label"
