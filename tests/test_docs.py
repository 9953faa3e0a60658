"""The documentation is true: the recipe reference is the code's, every recipe that is shipped loads."""

import ast
import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from omnisource.ingest import ingest
from omnisource.recipe import load_recipe
from omnisource.tables import read_table
from omnisource.workspace import open_workspace

ROOT = Path(__file__).parents[1]
SPECIAL = {"__init__", "__main__", "__pycache__"}  # of no level
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))  # test_recipes.py loads the published ones


def test_the_recipe_reference_is_up_to_date() -> None:
    command = [sys.executable, ROOT / "docs/make_recipe_reference.py", "--check"]
    done = subprocess.run(command, check=False)
    assert done.returncode == 0, "run: python docs/make_recipe_reference.py"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_recipe_of_ours_loads(path: Path) -> None:
    recipe = load_recipe(path)
    for run in recipe.planned_runs():
        recipe.student_of(run)


def test_the_example_of_ones_own_data_is_ingested(tmp_path: Path) -> None:
    page = (ROOT / "docs/data.md").read_text()
    (recipe,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.S)
    clips, images = re.findall(r"```csv\n(.*?)```", page, flags=re.S)
    texts = {"recipe.yaml": recipe, "clips.csv": clips, "images.csv": images, "long.txt": "1.mp4 drumming\n"}
    listed = [f"clips/{row['file']}" for row in csv.DictReader(clips.splitlines())]
    listed += [row["path"] for row in csv.DictReader(images.splitlines())]
    # The page shows the first lines of its tables; here every class gets what it lacks there.
    texts["clips.csv"] += "d.mp4,drumming,gym-0,train\nj.mp4,jumping jacks,gym-0,train\n"
    texts |= {
        name: name for name in (*listed, "clips/d.mp4", "clips/j.mp4", "web-videos/1.mp4", "web-clips/drumming/1")
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with open_workspace(tmp_path / "workspace") as workspace:
        counts = ingest(load_recipe(tmp_path / "recipe.yaml"), workspace).counts
        rows = read_table(workspace.table("samples")).to_pylist()
    assert counts["classes"] == ["cartwheeling", "drumming", "jumping jacks"]
    assert (counts["train"], counts["test"], counts["dropped"]) == (3, 2, 0)
    assert sorted(row["query_label"] for row in rows if row["source"] == "images") == ["drumming", "jumping jacks"]


def test_imports_go_down_as_the_architecture_says() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    order = page.split("Imports go down only:\n\n")[1].split("\n\n")[0]
    level = {room: number for number, rooms in enumerate(order.split("->")) for room in re.findall(r"\w+", rooms)}
    source = ROOT / "src/omnisource"
    assert level.keys() == {path.stem for path in source.iterdir() if path.is_dir() or path.suffix == ".py"} - SPECIAL
    for path in source.rglob("*.py"):
        room = path.relative_to(source).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())) if room in level else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("omnisource."):
                other = str(node.module).split(".")[1]
                assert other == room or level[other] > level[room] or {room, other} == {"pipeline", "ahead"}, path
