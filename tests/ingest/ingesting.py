"""Data as the tests lay them out, and `ingest` of them."""

from pathlib import Path
from typing import Any

from omnisource.ingest import ingest
from omnisource.recipe import Recipe
from omnisource.tables import read_table
from omnisource.workspace import StageRecord, Workspace, open_workspace

NETS = {
    "teachers": {"image": {"network": {"name": "tsn_r18"}}, "video": {"network": {"name": "slowonly_r18"}}},
    "student": {"network": {"name": "slowonly_r18"}},
}


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def run(folder: Path, **changes: Any) -> tuple[StageRecord, list[dict[str, Any]]]:
    recipe = Recipe.model_validate({"name": "t", "data": folder, **NETS, **changes})
    with open_workspace(folder / "ws") as workspace:
        record = ingest(recipe, workspace)
        return record, read_table(Workspace(folder / "ws").table("samples")).to_pylist()


def tree(folder: Path) -> None:
    touch(folder, *(f"target/{label}/{i}.mp4" for label in ("jump", "hand_wave") for i in range(8)))
    touch(folder, "images/Hand Wave/a b.jpg", "images/jump/../jump/x.jpg", "images/jump/ü\n.png", "images/jump/.hidden")


FOLDERS = {
    "target": {"role": "target", "path": "target", "test_share": 0.25},
    "images": {"role": "web", "format": "image", "path": "images"},
}
