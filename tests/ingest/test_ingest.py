"""Folders and the field's lists become samples; what is wrong with them is said in one line."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from ingesting import FOLDERS, NETS, run, touch, tree

from omnisource.errors import UserError
from omnisource.ingest import column_values, is_labelled
from omnisource.recipe import Recipe
from omnisource.tables import SAMPLES, table_from_rows, write_table
from omnisource.workspace import open_workspace


def test_folders(tmp_path: Path) -> None:
    tree(tmp_path)
    record, rows = run(tmp_path, sources=FOLDERS)
    assert record.counts["classes"] == ["hand_wave", "jump"]
    assert [row["split"] for row in rows if row["role"] == "target"].count("test") == 4
    images = [row for row in rows if row["source"] == "images"]
    assert sorted(row["query_label"] for row in images) == ["hand_wave", "jump", "jump"]
    assert len({row["sample_id"] for row in rows}) == len(rows) == 19


@pytest.mark.parametrize(("share", "clips"), [(0.25, 6), (0.25, 2), (0.5, 7), (0.3, 10), (0.1, 25)])
def test_the_parts_of_a_share_have_no_clip_in_common(tmp_path: Path, share: float, clips: int) -> None:
    touch(tmp_path, *(f"target/{label}/{n}.mp4" for label in "ab" for n in range(clips)))
    parts = int(1 / share)
    tested = list[str]()
    for part in range(parts):
        target = {"role": "target", "path": "target", "test_share": share, "test_part": part}
        try:
            _, rows = run(tmp_path, sources={"target": target})
        except UserError as error:  # so few clips that there is none for every part
            assert "no test clips" in str(error) and clips < parts and part
            continue
        found = [row["sample_id"] for row in rows if row["split"] == "test"]
        assert abs(len(found) / 2 - share * clips) <= 1
        tested += found
    assert len(set(tested)) == len(tested) and abs(len(tested) / 2 - parts * share * clips) <= 1


def test_what_a_list_says_before_it_is_ingested(tmp_path: Path) -> None:
    touch(tmp_path, "v/a/0.mp4", "v/a/1.mp4", "w/0.mp4")
    (tmp_path / "l.csv").write_text("path,fold,query\nv/a/0.mp4,1,\nv/a/1.mp4,2,")
    web = {"role": "web", "path": "l.csv", "columns": {"label": "query"}}
    sources = {
        "t": {"role": "target", "path": "v"},
        "unasked": web,
        "files": {"role": "web", "path": "w", "layout": "files"},
    }
    sources |= {"asked": {"role": "web", "path": "v"}, "brought": {"role": "web", "layout": "collected"}}
    recipe = Recipe.model_validate({"name": "t", "data": tmp_path, **NETS, "sources": sources})
    assert [name for name in sources if is_labelled(recipe, name)] == ["t", "asked", "brought"]
    assert column_values(recipe, "unasked", "fold") == {"1", "2"} and column_values(recipe, "t", "fold") == set()


def test_the_parts_of_a_share_keep_groups_whole(tmp_path: Path) -> None:
    touch(tmp_path, *(f"v/{n}.mp4" for n in range(120)))
    (tmp_path / "l.csv").write_text(
        "\n".join(["path,label,group", *(f"v/{n}.mp4,{'ab'[n % 2]},film{n // 4}" for n in range(120))])
    )
    whole: set[str] = set()
    for part in range(4):
        _, rows = run(
            tmp_path, sources={"t": {"role": "target", "path": "l.csv", "test_share": 0.25, "test_part": part}}
        )
        films = {row["group"] for row in rows if row["split"] == "test"}
        assert films and not films & {row["group"] for row in rows if row["split"] == "train"} and not films & whole
        whole |= films
    assert len(whole) == 30, "each film is tested once"


def test_pieces_of_one_film_fall_on_one_side(tmp_path: Path) -> None:
    touch(tmp_path, *(f"v/{n}.mp4" for n in range(24)))
    rows = ["path,label,begin,end", *(f"v/{n}.mp4,{'ab'[k % 2]},{k},{k + 2}" for n in range(20) for k in range(4))]
    rows += [f"v/{n}.mp4,a,," for n in range(20, 24)]
    (tmp_path / "l.csv").write_text("\n".join(rows))
    source = {"role": "target", "path": "l.csv", "columns": {"start_s": "begin", "end_s": "end"}, "test_share": 0.25}
    _, rows = run(tmp_path, sources={"t": source})
    sides: dict[str, set[str]] = {}
    for row in rows:
        assert row["group"] == (None if row["start_s"] is None else f"v/{Path(row['uri']).name}")
        sides.setdefault(row["uri"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in sides.values()) and {"train", "test"} == set.union(*sides.values())
    few = {"t": source | {"test_share": 0.0001}}
    with pytest.raises(UserError, match=r"no test clips; no group fell into the share: raise sources\.t\.test_share"):
        run(tmp_path, sources=few)


def test_clips_named_as_those_of_ucf101_are_grouped(tmp_path: Path) -> None:
    """Whoever has them in class folders and lets a share be drawn would else test on films that were trained on."""
    for label in ("Archery", "Bowling"):
        touch(tmp_path, *(f"u/{label}/v_{label}_g{film:02}_c{n:02}.avi" for film in range(9) for n in (1, 2)))
    touch(tmp_path, "u/Archery/v_Archery_g1.avi", "u/Bowling/_c2.avi")
    _, rows = run(tmp_path, sources={"t": {"role": "target", "path": "u", "test_share": 0.3}})
    sides: dict[str, set[str]] = {}
    for row in rows:
        name = Path(row["uri"]).name
        assert row["group"] == (name.rpartition("_c")[0] if "_c0" in name else None)
        sides.setdefault(row["group"] or name, set()).add(row["split"])
    assert len(sides) == 20 and all(len(splits) == 1 for splits in sides.values())


def test_what_makes_no_sample_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "t/train/a/1.mp4", "t/train/b/1.mp4", "t/test/a/2.mp4", "t/train/loose.mp4", "t/train/names.txt")
    (tmp_path / "t/test/b").mkdir()
    _, rows = run(tmp_path, sources={"target": {"role": "target", "path": "t"}})
    assert len(rows) == 3
    said = capsys.readouterr().err
    assert f"{tmp_path / 't/test/b'}: no files in this class folder" in said
    assert f"left out (in no class folder): 1 media files, first {tmp_path / 't/train/loose.mp4'}" in said
    assert "note: no test clips of b:" in said


def test_a_workspace_among_the_data_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4")
    with pytest.raises(UserError, match=r"ws: lies in sources\.target"):
        run(tmp_path, sources={"target": {"role": "target", "path": ".", "test_share": 0.5}})
    assert not (tmp_path / "ws").exists()


def test_again_is_current_until_a_file_changes(tmp_path: Path) -> None:
    tree(tmp_path)
    assert run(tmp_path, sources=FOLDERS)[0].fresh
    assert not run(tmp_path, sources=FOLDERS)[0].fresh
    (tmp_path / "images" / "jump" / "x.jpg").write_bytes(b"other")
    assert run(tmp_path, sources=FOLDERS)[0].fresh


def test_ids_do_not_depend_on_where_the_data_lies(tmp_path: Path) -> None:
    ids = []
    for place in ("one", "two"):
        tree(tmp_path / place)
        ids.append({row["sample_id"] for row in run(tmp_path / place, sources=FOLDERS)[1]})
    assert ids[0] == ids[1]


def test_split_folders(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"t/{s}/{label}/{i}.mp4" for s in ("train", "validation", "test") for label in "ab" for i in "12")
    )
    _, rows = run(tmp_path, sources={"t": {"role": "target", "path": "t"}})
    assert sorted({row["split"] for row in rows}) == ["test", "train", "val"]


def test_collected_samples_obey_the_source(tmp_path: Path) -> None:
    tree(tmp_path)
    with open_workspace(tmp_path / "ws") as workspace:
        found = [
            {
                "sample_id": f"c{n}",
                "source": "web",
                "role": "web",
                "format": "image",
                "uri": f"/m/{n}.jpg",
                "status": "ok",
            }
            | {"query_label": "jump", "licence": licence, "author": author}
            for n, (licence, author) in enumerate([("cc0", "a"), ("CC-BY", "b"), (None, "a"), ("cc0", "x")])
        ]
        write_table(workspace.table("collected"), table_from_rows(found, SAMPLES))
    web = {
        "role": "web",
        "format": "image",
        "layout": "collected",
        "licence": ["cc0", "cc-by"],
        "exclude": {"author": "x"},
    }
    _, rows = run(tmp_path, sources={**FOLDERS, "web": web})
    reasons = {row["sample_id"]: row["reason"] for row in rows if row["source"] == "web"}
    assert reasons == {"c0": None, "c1": None, "c2": "licence"}


def test_files_without_labels(tmp_path: Path) -> None:
    tree(tmp_path)
    touch(tmp_path, "long/a.mp4", "long/deep/b.mp4", "long/c.mp4")
    web = {"role": "web", "format": "untrimmed", "path": "long", "layout": "files", "exclude": {"path": "c.mp4"}}
    _, rows = run(tmp_path, sources={**FOLDERS, "long": web})
    found = {Path(row["uri"]).name: row["query_label"] for row in rows if row["source"] == "long"}
    assert found == {"a.mp4": None, "b.mp4": None}


def test_any_number_of_pieces_makes_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path)
    sources = {**FOLDERS, "images": FOLDERS["images"] | {"max_per_class": 2}}
    whole, _ = run(tmp_path, sources=sources)
    for name in ("listed._ROWS", "facts._SHARE"):
        monkeypatch.setattr(f"omnisource.ingest.{name}", 3)
    monkeypatch.setattr("omnisource.tables.io._GROUP_ROWS", 5)
    assert not run(tmp_path, sources=sources)[0].fresh
    (tmp_path / "ws" / "tables" / "samples.parquet").unlink()
    pieces, _ = run(tmp_path, sources=sources)
    assert pieces.fresh
    assert (pieces.settings, pieces.counts) == (whole.settings, whole.counts)
    assert not list((tmp_path / "ws" / "partial").iterdir())


def test_odd_names_and_files(tmp_path: Path) -> None:
    tree(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    names = ["pipe.mp4", "circle.mp4", "a\0b.mp4", "half \ud800.mp4", "target/jump/1.mp4"]
    (tmp_path / "odd.json").write_text(json.dumps([{"path": name, "label": "jump"} for name in names]))
    _, rows = run(tmp_path, sources={**FOLDERS, "odd": {"role": "web", "path": "odd.json"}})
    reasons = {Path(row["uri"]).name: row["reason"] for row in rows if row["source"] == "odd"}
    assert reasons == {
        "pipe.mp4": "unreadable",  # and not waited for
        "circle.mp4": "unreadable",
        "a\0b.mp4": "unreadable",
        "odd.json: entry 3": "bad_row",
        "1.mp4": None,
    }


def test_bad_rows_are_dropped_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"v/{n}.mp4,{'ab'[n % 2]},{'dev' if n < 2 else 'holdout'},0.{n}" for n in range(6)]
    source = {"role": "target", "path": "l.csv", "test": {"split": "holdout"}, "val": {"split": "dev"}}
    source |= {"where": {"score": {"below": 0.9}}, "max_per_class": 3}
    ids = []
    for place in ("one", "two"):
        touch(tmp_path / place, *(f"v/{n}.mp4" for n in range(6)))
        bad = ["v/0.mp4,a,other,0.1", "v/0.mp4,a,dev,high", "v/0.mp4,a\udce9,dev,0.1"]
        text = "\n".join(["path,label,split,score", rows[0], *bad, *rows[1:], ""])
        (tmp_path / place / "l.csv").write_bytes(text.encode(errors="surrogateescape"))
        sources = {"l": source, "t": {"role": "target", "path": "t.csv"}}
        (tmp_path / place / "t.csv").write_text("path,label\nv/0.mp4,a\nv/1.mp4,b\n")
        record, found = run(tmp_path / place, sources=sources)
        ids.append({row["sample_id"] for row in found})
    assert record.counts["reasons"] == {"bad_row": 3}
    assert (record.counts["test"], record.counts["val"], record.counts["train"]) == (4, 2, 2)
    assert sorted(Path(row["uri"]).name for row in found if row["status"] == "dropped") == [
        f"l.csv:{n}" for n in (3, 4, 5)
    ]
    assert ids[0] == ids[1]
    said = capsys.readouterr().err
    for line, fault in (
        (3, "split 'other' is none of"),
        (4, "sources.l: column 'score' holds 'high'"),
        (5, "is not UTF-8"),
    ):
        assert re.search(rf"left out \(bad_row\): .*two/l\.csv:{line}: .*{fault}", said)
    few = {"f": source | {"where": {"score": {"below": 0.05}}, "role": "web", "test": {}, "val": {}}}
    _, found = run(tmp_path / "two", sources=sources | few)  # more bad rows than it uses, but not than there are
    assert [row["reason"] for row in found if row["source"] == "f"].count(None) == 1
    (tmp_path / "two" / "l.csv").write_text("\n".join(["path,label,split,score", rows[0], *bad[:2], ""]))
    with pytest.raises(UserError, match=r"l\.csv:3: split 'other' .* \(2 of 3 rows are wrong\)"):
        run(tmp_path / "two", sources=sources)


def test_a_row_that_stands_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, *(f"v/{n}.mp4" for n in range(4)))
    rows = ["path,label,split", *(f"v/{n}.mp4,{'ab'[n % 2]},{'train' if n < 2 else 'test'}" for n in range(4))]
    (tmp_path / "l.csv").write_text("\n".join([*rows, rows[1], rows[4], rows[1]]))
    sources = {"t": {"role": "target", "path": "l.csv", "max_per_class": 2}}
    _, found = run(tmp_path, sources=sources)
    assert len(found) == 4
    assert re.search(r"left out \(listed before\): 3 rows of sources\.t, first .*v/0\.mp4", capsys.readouterr().err)
    (tmp_path / "l.csv").write_text("\n".join([*rows, "v/0.mp4,b,train"]))
    with pytest.raises(UserError, match=r"v/0\.mp4: listed 2 times in one source, as a and as b; mend the list"):
        run(tmp_path, sources=sources)
    (tmp_path / "l.csv").write_text("\n".join([*rows, "v/0.mp4,a,test"]))
    with pytest.raises(UserError, match=r"v/0\.mp4: listed 2 times in one source, with other splits"):
        run(tmp_path, sources=sources)


def test_classes_that_differ_in_spelling_alone_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, *(f"v/{label}/{n}.mp4" for label in ("Hand_wave", "hand wave", "jump") for n in range(4)))
    sources = {"t": {"role": "target", "path": "v", "test_share": 0.5}}
    run(tmp_path, sources=sources)
    said = " ".join(capsys.readouterr().err.split())
    assert "note: the classes 'Hand_wave' and 'hand wave' differ only in case, spaces, _ or -" in said
    merged, _ = run(tmp_path, sources={"t": sources["t"] | {"labels": {"hand wave": "Hand_wave"}}})
    assert merged.counts["classes"] == ["Hand_wave", "jump"] and "differ only" not in capsys.readouterr().err


def test_one_file_under_several_names(tmp_path: Path) -> None:
    touch(tmp_path, *(f"v/{n}.mp4" for n in range(4)))
    (tmp_path / "v" / "link.mp4").symlink_to("0.mp4")
    rows = ["path,label,split", *(f"v/{n}.mp4,{'ab'[n % 2]},{'train' if n < 2 else 'test'}" for n in range(4))]
    sources = {"t": {"role": "target", "path": "l.csv"}}
    again = ["./v/0.mp4,a,train", f"{tmp_path}/v/0.mp4,a,train", "v/link.mp4,a,train"]
    (tmp_path / "l.csv").write_text("\n".join([*rows, *again]))
    assert len(run(tmp_path, sources=sources)[1]) == 4  # none counts twice


def test_what_a_query_means(tmp_path: Path) -> None:
    tree(tmp_path)
    touch(tmp_path, "web/high jump/1.jpg", "web/wave hello/2.jpg", "web/Jump/3.jpg")
    web = {"role": "web", "format": "image", "path": "web"}
    means = {"high jump": "jump", "wave hello": "Hand wave"}
    _, rows = run(tmp_path, sources=FOLDERS | {"web": web | {"labels": means}})
    assert sorted(r["query_label"] for r in rows if r["source"] == "web") == ["hand_wave", "jump", "jump"]
    with pytest.raises(UserError, match=r"say what it means with `labels: \{high jump: CLASS\}`"):
        run(tmp_path, sources=FOLDERS | {"web": web})


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"target": {"role": "target", "path": "nowhere"}}, "missing (sources.target.path)"),
        ({"target": {"role": "target", "path": "empty"}}, "source 'target' has no files here"),
        ({"target": {"role": "target", "path": "target"}}, "has no test clips"),
        ({"target": {"role": "target", "path": "gone.csv"}}, "1 of 2 listed files are missing"),
        (
            {"target": {"role": "target", "path": "gone.csv", "columns": {"label": "clas"}}},
            "no column 'clas' (for label)",
        ),
        (
            {**FOLDERS, "images": {"role": "web", "path": "odd"}},
            "label 'jmup' (sources.images) is not in the class list; did you mean 'jump'?",
        ),
        ({"target": {"role": "target", "path": "target", "test": {"fold": 1}}}, "no column 'fold' to compare"),
        ({"target": {"role": "target", "path": "one", "test_share": 0.5}}, "1 class found"),
        ({"target": {"role": "target", "path": "one", "layout": "files", "test_share": 0.5}}, "which column has"),
        ({"target": {"role": "target", "path": "mixed"}}, "mixed/plots: beside folders called as splits"),
        ({"target": {"role": "target", "path": "target", "layout": "json"}}, "which needs a list file"),
        ({**FOLDERS, "web": {"role": "web", "path": "gone.txt", "missing": "drop"}}, "2 of 2 listed files are missing"),
        ({**FOLDERS, "web": {"role": "web", "layout": "collected"}}, "collected.parquet: no such table"),
    ],
)
def test_mistakes(tmp_path: Path, sources: dict[str, Any], expected: str) -> None:
    tree(tmp_path)
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "odd/jmup/1.jpg", "one/only/1.mp4", "one/only/2.mp4")
    touch(tmp_path, "mixed/train/a/1.mp4", "mixed/test/a/2.mp4", "mixed/plots/1.png")
    (tmp_path / "gone.csv").write_text("path,label\ntarget/jump/1.mp4,jump\ntarget/jump/99.mp4,jump\n")
    (tmp_path / "gone.txt").write_text("none/1.mp4 jump\nnone/2.mp4 jump\n")
    with pytest.raises(UserError) as caught:
        run(tmp_path, sources=sources)
    assert expected in str(caught.value)


def test_a_class_without_clips(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(UserError, match="class 'fly' has no training clips"):
        run(tmp_path, sources=FOLDERS, classes=["hand_wave", "jump", "fly"])


def test_missing_and_escaping_files_can_be_dropped(tmp_path: Path) -> None:
    tree(tmp_path)
    touch(tmp_path, "secret.mp4")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "l.txt").write_text(
        "../secret.mp4 jump\n../images/jump/none.jpg jump\nin.mp4 jump\nno.mp4 jump\n"
    )
    touch(tmp_path, "web/in.mp4")
    record, rows = run(tmp_path, sources={**FOLDERS, "web": {"role": "web", "path": "web/l.txt", "missing": "drop"}})
    assert (record.counts["dropped"], record.counts["reasons"]) == (3, {"missing": 1, "outside_root": 2})
    assert record.counts["test_list"] == record.counts["list_hash"]["test"]
    reasons = {Path(row["uri"]).name: row["reason"] for row in rows if row["source"] == "web"}
    assert reasons == {"secret.mp4": "outside_root", "none.jpg": "outside_root", "in.mp4": None, "no.mp4": "missing"}


def test_a_name_that_is_no_utf8_is_dropped_with_a_reason(tmp_path: Path) -> None:
    tree(tmp_path)
    (Path(os.fsdecode(os.fsencode(tmp_path / "images" / "jump") + b"/bad\xff.jpg"))).write_bytes(b"x")
    _, rows = run(tmp_path, sources=FOLDERS)
    assert [(Path(row["uri"]).name, row["status"]) for row in rows if row["reason"] == "bad_name"] == [
        ("bad\ufffd.jpg", "dropped")
    ]


def test_names_that_look_alike(tmp_path: Path) -> None:
    composed, split = "caf\u00e9", "cafe\u0301"  # the same word in other bytes
    touch(tmp_path, *(f"target/{name}/{n}.mp4" for name in (composed, "Jump", "jump") for n in range(2)))
    touch(tmp_path, f"web/{split}/1.mp4", "web/jump/2.mp4")
    sources = {
        "target": {"role": "target", "path": "target", "test_share": 0.5},
        "web": {"role": "web", "path": "web"},
    }
    _, rows = run(tmp_path, sources=sources)
    assert sorted(row["query_label"] for row in rows if row["role"] == "web") == [composed, "jump"]
    touch(tmp_path, "web/JUMP/3.mp4")
    with pytest.raises(UserError, match=r"label 'JUMP' \(sources\.web\) is not in the class list; classes are: Jump"):
        run(tmp_path, sources=sources)
    touch(tmp_path, f"target/{split}/1.mp4")
    with pytest.raises(UserError, match="two classes look like"):
        run(tmp_path, sources=sources)
    with pytest.raises(UserError, match="a class has an empty name"):
        run(tmp_path, sources=sources, classes=[composed, " "])
