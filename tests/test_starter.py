"""`init` writes a recipe that loads and ingests as it stands."""

from pathlib import Path

import numpy as np
import pytest

from omnisource.errors import UserError
from omnisource.ingest import ingest
from omnisource.media.write import write_video
from omnisource.recipe import load_recipe
from omnisource.starter import read_target, write_starter
from omnisource.tables import read_table
from omnisource.workspace import open_workspace


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_plain_folders(tmp_path: Path) -> None:
    make(tmp_path, *(f'my "clips"/{label}/{i}.mp4' for label in ("run: fast", "jump") for i in range(4)))
    make(tmp_path, "img/run: fast/1.jpg", "long/jump/1.mp4")
    path = write_starter(
        tmp_path / "new project", target=tmp_path / 'my "clips"', images=tmp_path / "img", untrimmed=tmp_path / "long"
    )
    recipe = load_recipe(path)
    assert recipe.name == "new-project"
    assert list(recipe.planned_runs()) == ["target-only", "+images", "+untrimmed", "all"]
    with open_workspace(tmp_path / "ws") as workspace:
        assert ingest(recipe, workspace).counts["classes"] == ["jump", "run: fast"]
    assert read_target(tmp_path / 'my "clips"').labels == ["jump", "run: fast"]
    with pytest.raises(UserError, match="already there"):
        write_starter(tmp_path / "new project", target=tmp_path / 'my "clips"')


def test_windows_are_as_long_as_the_clips(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / "t" / "jump" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = ((time / 10, np.full((32, 32, 3), time, np.uint8)) for time in range(32))
        write_video(path, frames, options={"crf": "30"})
    make(tmp_path, "t/jump/broken.mp4", "long/jump/1.mp4")
    recipe = load_recipe(write_starter(tmp_path / "p", target=tmp_path / "t", untrimmed=tmp_path / "long"))
    assert (recipe.score.window_s, recipe.score.hop_s) == (3.0, 1.5)
    assert recipe.select.query_evidence and recipe.student.confidence_weighted


def test_a_web_folder_without_queries_is_the_teachers_word_alone(tmp_path: Path) -> None:
    make(tmp_path, *(f"t/{label}/{i}.mp4" for label in ("run", "jump") for i in range(4)))
    make(tmp_path, "img/run/1.jpg", "img/notes.txt", "long/monday.mp4", "long/.hidden")
    given = {"target": tmp_path / "t", "images": tmp_path / "img"}
    searched = load_recipe(write_starter(tmp_path / "a", **given))
    assert searched.select.calibrate.temperature == 3 and searched.student.confidence_weighted
    recipe = load_recipe(write_starter(tmp_path / "b", **given, untrimmed=tmp_path / "long"))
    assert (recipe.sources["images"].layout, recipe.sources["untrimmed"].layout) == ("auto", "files")
    calibrate = recipe.select.calibrate
    assert (calibrate.temperature, calibrate.split, calibrate.align) == ("matched", "cross", 0.5)
    assert not recipe.student.confidence_weighted
    with open_workspace(tmp_path / "ws") as workspace:
        ingest(recipe, workspace)
        rows = read_table(workspace.table("samples")).to_pylist()
    assert {row["uri"].split("/")[-1]: row["query_label"] for row in rows if row["role"] == "web"} == {
        "1.jpg": "run",
        "monday.mp4": None,
    }
    make(tmp_path, "hidden/.only")
    with pytest.raises(UserError, match=r"no class folders with files in them \(--clips\)"):
        write_starter(tmp_path / "c", target=tmp_path / "t", clips=tmp_path / "hidden")


def test_wrong_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no such folder or list \(--target\)"):
        write_starter(tmp_path / "p", target=tmp_path / "none")
    with pytest.raises(UserError, match=r"no class folders with files in them \(--target\)"):
        write_starter(tmp_path / "p", target=tmp_path / "empty")
    make(tmp_path, "t/jump/1.mp4")
    with pytest.raises(UserError, match=r"unknown network 'tsn_r51': did you mean tsn_r"):
        write_starter(tmp_path / "p", target=tmp_path / "t", network="tsn_r51")
    assert not (tmp_path / "p").exists()
    with pytest.raises(UserError, match=r"lies in .*t \(--target\), so it would be taken for data"):
        write_starter(tmp_path / "t" / "project", target=tmp_path / "t")


def test_target_folders_with_splits_keep_them(tmp_path: Path) -> None:
    make(tmp_path, *(f"t/{split}/{label}/1.mp4" for split in ("train", "test") for label in "ab"), "t/.cache/1")
    recipe = load_recipe(write_starter(tmp_path / "p", target=tmp_path / "t", network="slowonly_r18"))
    assert recipe.sources["target"].test_share == 0
    assert recipe.student.network.name == "slowonly_r18"


LIST = "path,label,group,fold,split,query\n"


@pytest.mark.parametrize(
    ("fold", "split", "written", "tested"),
    [
        ("{part}", "", {"test": {"fold": "0"}, "test_share": 0}, 4),
        ("", "", {"test": {}, "test_share": 0.25}, 2),
        ("7", "", {"test": {}, "test_share": 0.25}, 2),
        ("{part}", "{word}", {"test": {}, "test_share": 0}, 4),
        ("", "train", {"test": {}, "test_share": 0.25}, 2),
    ],
)
def test_lists(fold: str, split: str, written: dict[str, object], tested: int, tmp_path: Path) -> None:
    """What is tested on is what the list says, else one of its folds, else a share."""
    rows = [
        f"v/{label}-{i}.mp4,{label},film-{i},{fold.format(part=i % 2)},{split.format(word=('train', 'test')[i % 2])},\n"
        for i in range(4)
        for label in ("jump", "run")
    ]
    (tmp_path / "clips.csv").write_text(LIST + "".join(rows) + "v/wrong.mp4,run,g,,neither,\n")
    (tmp_path / "images.csv").write_text(LIST + "w/1.jpg,run,,,,jump\n")  # found to be run, where jump was asked for
    (tmp_path / "long.json").write_text('[{"path": "w/1.mp4"}]')
    make(tmp_path, *(f"v/{label}-{i}.mp4" for i in range(4) for label in ("jump", "run")), "w/1.jpg", "w/1.mp4")
    given = {"target": tmp_path / "clips.csv", "images": tmp_path / "images.csv"}
    recipe = load_recipe(write_starter(tmp_path / "p", **given))
    assert recipe.sources["target"].model_dump(include={"test", "test_share"}) == written
    assert recipe.student.confidence_weighted
    found = load_recipe(write_starter(tmp_path / "q", **given, untrimmed=tmp_path / "long.json"))
    assert found.select.calibrate.temperature == "matched"
    with open_workspace(tmp_path / "ws") as workspace:
        counts = ingest(recipe, workspace).counts
        rows_read = read_table(workspace.table("samples")).to_pylist()
    assert (counts["classes"], counts["test"]) == (["jump", "run"], tested)
    assert [row["query_label"] for row in rows_read if row["role"] == "web"] == ["jump"]


def test_lists_of_no_use(tmp_path: Path) -> None:
    make(tmp_path, "t/jump/1.mp4")
    for name, text, wrong in (
        ("a.csv", "path,class\nv/1.mp4,jump\n", r"a.csv: no row has a label \(--target\); copy its column"),
        (
            "b.csv",
            "label,youtube_id,time_start,time_end\njump,abc,1,2\n",
            "Kinetics list does not say where its files are",
        ),
        ("c.csv", "file,label\nv/1.mp4,jump\n", r"c.csv: no column 'path'"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=wrong):
            write_starter(tmp_path / "p", target=tmp_path / name)
        if name != "a.csv":
            with pytest.raises(UserError, match=wrong):
                write_starter(tmp_path / "p", target=tmp_path / "t", clips=tmp_path / name)
    assert not (tmp_path / "p").exists()
