"""The README's commands do what it says, as a newcomer would type them (on little data, with little training)."""

import csv
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omnisource.demo import WorldSize, make_world

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
QUICK = ["student.epochs=1", "teachers.image.epochs=1", "teachers.video.epochs=1", "seeds=[0]", "test.clips=2"]
# A teacher that has hardly learned agrees with nothing; here its word is taken as it is.
QUICK += ["select.rule=teacher", "select.threshold=0.0"]
# Not what `init` writes, so that the job has every kind of training in it.
QUICK += ["select.calibrate.temperature=matched", "select.calibrate.split=cross"]
QUICK += [
    f"{part}.input.{key}" for part in ("student", "teachers.image", "teachers.video") for key in ("size=32", "frames=2")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the README names, filled from the miniature world."""
    place = tmp_path_factory.mktemp("newcomer")
    size = WorldSize(train_clips=3, test_clips=1, train_scenes=2, test_scenes=1, images=16, clips=8, untrimmed=2)
    world = make_world(place / "world", size=size)
    for name, table, column in (
        ("clips", world.target_csv, "label"),
        ("web-images", world.images_csv, "query"),
        ("web-clips", world.clips_csv, "query"),
        ("web-videos", world.untrimmed_csv, "query"),
    ):
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                goal = place / name / row[column] / Path(row["path"]).name
                goal.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(world.root / row["path"], goal)
    return place


def blocks(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", README, flags=re.S))


def test_the_commands_and_the_python(folder: Path) -> None:
    commands = [line for line in blocks("sh").splitlines() if line.startswith("omnisource ")]
    assert [shlex.split(line)[1] for line in commands] == ["init", "run"]
    for line in commands:
        words = [sys.executable, "-m", *shlex.split(line)]
        if words[3] == "run":
            words += [word for setting in QUICK for word in ("--set", setting)]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "report:" in done.stderr
    assert (folder / "workspaces/project/report/index.html").exists()
    # The lines of Python go on where the commands ended.
    code = blocks("python")
    assert '"student.epochs=5"' in code
    code = code.replace('["student.epochs=5"]', repr(QUICK)) + "\nassert report.exists()\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_knows_its_targets() -> None:
    for line in blocks("sh").splitlines():
        if line.startswith("make "):
            target = line.split()[1]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M), target
