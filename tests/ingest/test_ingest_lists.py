"""The field's lists become samples."""

import json
from pathlib import Path

from ingesting import run, touch

from omnisource.ingest.listings import detect_layout


def test_a_table_with_conditions(tmp_path: Path) -> None:
    touch(tmp_path, *(f"v/{i}.mp4" for i in range(12)))
    lines = [f"v/{i}.mp4;{'ab'[i % 2]};{i % 3};{i / 12};{'ba'[i % 2]}" for i in range(12)]
    (tmp_path / "list.csv").write_text("file;class;fold;rank;query\n" + "\n".join(lines) + "\n")
    columns = {"path": "file", "label": "class"}
    sources = {
        "t": {
            "role": "target",
            "path": "list.csv",
            "columns": columns,
            "test": {"fold": 0},
            "where": {"rank": {"below": 0.6}},
        },
        "hidden": {
            "role": "web",
            "path": "list.csv",
            "columns": {"path": "file", "label": "query"},
            "where": {"rank": {"above": 0.6}},
            "exclude": {"fold": 0},
        },
    }
    _, rows = run(tmp_path, sources=sources)
    target = {Path(row["uri"]).stem: row for row in rows if row["source"] == "t"}
    assert {stem for stem, row in target.items() if row["split"] == "test"} == {"0", "3", "6"}
    assert set(target) == {str(i) for i in range(8)}
    hidden = {Path(row["uri"]).stem: row["query_label"] for row in rows if row["source"] == "hidden"}
    assert hidden == {"8": "b", "10": "b", "11": "a"}


def test_lines_of_the_toolkits(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4", "long/part_0.mp4", "long/part_2.mp4", "whole.mp4", "t.mp4")
    (tmp_path / "train.txt").write_text("a/1.mp4 0\nb/2.mp4 1\n")
    (tmp_path / "test.txt").write_text("t.mp4 1\n")
    (tmp_path / "raw.txt").write_text("long 1 3 0 2\nwhole.mp4 0 6 4\n")
    sources = {
        "t": {"role": "target", "path": "train.txt", "split": "train"},
        "v": {"role": "target", "path": "test.txt", "split": "test"},
        "long": {"role": "web", "path": "raw.txt"},
    }
    _, rows = run(tmp_path, sources=sources, classes=["jump", "wave"])
    found = {(Path(r["uri"]).name, r["query_label"], r["start_s"], r["end_s"]) for r in rows if r["source"] == "long"}
    assert found == {
        ("part_0.mp4", "wave", None, None),
        ("part_2.mp4", "wave", None, None),
        ("whole.mp4", "jump", 40, 50),
    }
    assert {row["label"] for row in rows if row["source"] == "t"} == {"jump", "wave"}


def test_kinetics_csv_finds_its_files(tmp_path: Path, shared: Path) -> None:
    source = (shared / "data/lists/mini_kinetics/train_k200.csv").read_text().splitlines()
    rows_wanted = [source[1].split(","), source[1500].split(",")]
    (tmp_path / "train.csv").write_text("\n".join([source[0], source[1], source[1500]]) + "\n")
    (label_a, id_a, *_), (label_b, id_b, *_) = rows_wanted
    start, end = int(rows_wanted[0][2]), int(rows_wanted[0][3])
    touch(tmp_path, f"videos/{label_a}/{id_a}_{start:06d}_{end:06d}.mkv", f"videos/{id_b}.mp4")
    sources = {
        "t": {"role": "target", "path": "train.csv", "root": "videos"},
        "v": {"role": "target", "path": "train.csv", "root": "videos", "split": "test"},
    }
    record, rows = run(tmp_path, sources=sources)
    assert sorted(record.counts["classes"]) == sorted({label_a, label_b})
    assert all(row["status"] == "ok" for row in rows)


def test_official_splits(tmp_path: Path, shared: Path) -> None:
    splits = shared / "data/lists/ucf101_splits"
    assert detect_layout(splits) == "ucf101"
    for name in ("v_ApplyEyeMakeup_g01_c01", "v_ApplyEyeMakeup_g08_c01"):
        touch(tmp_path, f"videos/ApplyEyeMakeup/{name}.avi")
    for name in ("v_Archery_g01_c01", "v_Archery_g08_c01"):
        touch(tmp_path, f"videos/Archery/{name}.avi")
    source = {
        "role": "target",
        "path": str(splits),
        "root": "videos",
        "where": {"fold": 2, "label": ["ApplyEyeMakeup", "Archery"]},
        "missing": "drop",
    }
    record, rows = run(tmp_path, sources={"ucf": source})
    assert record.counts["classes"] == ["ApplyEyeMakeup", "Archery"]
    assert len(rows) == 80 + 210
    assert all(row["group"] == Path(row["uri"]).stem.rpartition("_c")[0] != "" for row in rows)
    there = {Path(row["uri"]).stem: row["split"] for row in rows if row["status"] == "ok"}
    assert there == {
        "v_ApplyEyeMakeup_g01_c01": "train",
        "v_ApplyEyeMakeup_g08_c01": "test",
        "v_Archery_g01_c01": "train",
        "v_Archery_g08_c01": "test",
    }


def test_hmdb51_splits(tmp_path: Path) -> None:
    for label in ("wave", "run"):
        touch(tmp_path, *(f"videos/{label}/{i}.avi" for i in range(3)))
        for fold, marks in ((1, "120"), (2, "211")):
            text = "".join(f"{i}.avi {mark} \n" for i, mark in enumerate(marks))
            touch(tmp_path / "splits", f"{label}_test_split{fold}.txt")
            (tmp_path / "splits" / f"{label}_test_split{fold}.txt").write_text(text)
    _, rows = run(tmp_path, sources={"h": {"role": "target", "path": "splits", "root": "videos", "where": {"fold": 1}}})
    assert sorted((Path(row["uri"]).stem, row["split"]) for row in rows if row["label"] == "run") == [
        ("0", "train"),
        ("1", "test"),
    ]


def test_json_lists(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "v_c.mp4", "78687.webm")
    (tmp_path / "ids.json").write_text(json.dumps([{"id": "78687", "label": "holding x", "template": "x"}]))
    (tmp_path / "list.json").write_text(
        json.dumps({"data_list": [{"filename": "a.mp4", "label": "x"}, {"filename": "b.mp4", "label": "y"}]})
    )
    pieces = [{"label": "x", "segment": [1, 4.5]}, {"label": "y", "segment": [9, 12]}]
    (tmp_path / "net.json").write_text(json.dumps({"database": {"c": {"subset": "validation", "annotations": pieces}}}))
    sources = {
        "t": {"role": "target", "path": "list.json"},
        "n": {"role": "target", "path": "net.json", "test": {"subset": "validation"}},
        "i": {"role": "target", "path": "ids.json", "columns": {"label": "template"}},
    }
    _, rows = run(tmp_path, sources=sources)
    assert [(r["start_s"], r["end_s"], r["split"]) for r in rows if r["source"] == "n" and r["label"] == "x"] == [
        (1, 4.5, "test")
    ]
