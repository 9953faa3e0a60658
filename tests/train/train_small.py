"""A small workspace with real media in all formats, and the tables that the stages before training would write."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from omnisource.recipe import Recipe
from omnisource.tables import DECISIONS, DUPLICATES, PROBE, SAMPLES, table_from_rows, write_json, write_table
from omnisource.workspace import StageRecord, Workspace, open_workspace

CLASSES = ["left", "right", "still"]
FPS = 10
WIDTH, HEIGHT = 56, 48


@dataclass(frozen=True)
class Small:
    """A recipe and its workspace."""

    recipe: Recipe
    workspace: Workspace

    def with_student(self, **changes: Any) -> Recipe:
        """The recipe with settings of its student changed: dotted keys with __ for dots."""
        values = self.recipe.model_dump(mode="json")
        for key, value in changes.items():
            at = values["student"]
            *parents, last = key.split("__")
            for parent in parents:
                at = at[parent]
            at[last] = value
        return Recipe.model_validate(values)


def picture(label: int, moment: float, rng: np.random.Generator) -> np.ndarray:
    """A square that moves left or right, or stands still, over noise."""
    frame = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    shift = int((-1, 1, 0)[label] * moment * 12)
    left = WIDTH // 2 - 6 + shift
    frame[18:30, max(left, 0) : left + 12, label] = 255
    return frame


def film(path: Path, label: int, frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"g": "8", "crf": "18"}
        for number in range(frames):
            image = av.VideoFrame.from_ndarray(picture(label, number / FPS % 2 - 0.5, rng), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())


def make_small(root: Path) -> Small:
    """Twenty target clips, twelve images, nine web clips, three untrimmed videos; three classes."""
    media = root / "media"
    media.mkdir(parents=True)
    samples: list[dict[str, Any]] = []
    probe: list[dict[str, Any]] = []
    decisions: list[dict[str, Any]] = []

    def add(source: str, role: str, form: str, number: int, label: int, frames: int) -> None:
        identity = f"{source}-{number:03d}"
        path = media / f"{identity}{'.png' if form == 'image' else '.mp4'}"
        if form == "image":
            Image.fromarray(picture(label, 0.3, np.random.default_rng(number))).save(path)
        else:
            film(path, label, frames, number)
        split = ("val" if number >= 16 else "train") if role == "target" else None
        name = CLASSES[label]
        samples.append(
            {"sample_id": identity, "source": source, "role": role, "format": form, "uri": str(path), "status": "ok"}
            | ({"label": name, "split": split} if role == "target" else {"query_label": name})
        )
        probe.append(
            {"sample_id": identity, "kind": "image" if form == "image" else "video", "status": "ok"}
            | {"width": WIDTH, "height": HEIGHT, "decodable_share": 1.0}
            | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            | ({} if form == "image" else {"fps": float(FPS), "num_frames": frames, "duration_s": frames / FPS})
        )
        row = {"sample_id": identity, "source": source, "label": name, "keep": True, "negative": False}
        row |= {"decided_by": "rule", "confidence": 0.9}
        if role == "web" and form != "untrimmed":
            decisions.append(row | {"unit": form})
        elif role == "web":
            for start in range(0, frames // FPS, 2):
                window = {"unit": "window", "start_s": float(start), "end_s": float(start + 2)}
                decisions.append(row | window | {"keep": start != 2, "reason": "low" if start == 2 else None})
            for second in range(frames // FPS):
                side = {"keep": second % 3 == 0, "negative": second % 3 == 1}
                decisions.append(row | side | {"unit": "frame", "start_s": second + 0.5, "end_s": second + 1.5})

    for number in range(20):
        add("clips", "target", "clip", number, number % 3, 20)
    for number in range(12):
        add("images", "web", "image", number, min(number % 4, 2), 1)
    for number in range(9):
        add("shorts", "web", "clip", number, number % 3, 16)
    for number in range(3):
        add("films", "web", "untrimmed", number, number, 80)

    recipe = Recipe.model_validate(
        {
            "name": "small",
            "data": str(media),
            "sources": {
                "clips": {"role": "target", "path": "x"},
                "images": {"role": "web", "format": "image", "path": "x"},
                "shorts": {"role": "web", "path": "x"},
                "films": {"role": "web", "format": "untrimmed", "path": "x"},
            },
            "teachers": {"image": settings("tsn_r18"), "video": settings("slowonly_r18")},
            "student": settings("slowonly_r18"),
        }
    )
    (root / "recipe.json").write_text(recipe.model_dump_json())
    with open_workspace(root / "workspace") as workspace:
        write_table(workspace.table("samples"), table_from_rows(samples, SAMPLES))
        write_table(workspace.table("probe"), table_from_rows(probe, PROBE))
        write_table(workspace.table("duplicates"), table_from_rows([], DUPLICATES))
        write_table(workspace.table("decisions-default"), table_from_rows(decisions, DECISIONS))
        for stage in ("ingest", "probe", "dedupe", "select"):
            record = StageRecord(stage, f"stamp-{stage}", "", {}, {"classes": CLASSES} if stage == "ingest" else {})
            write_json(workspace.root / "stages" / f"{stage}.json", asdict(record))
    return Small(recipe, workspace)


def load_small(root: Path) -> Small:
    """What make_small wrote, in another process."""
    recipe = Recipe.model_validate_json((root / "recipe.json").read_text())
    return Small(recipe, Workspace(root / "workspace"))


def settings(network: str) -> dict[str, Any]:
    """A training that takes a second or two."""
    spatial = network.startswith("tsn")
    return {
        "network": {"name": network, "dropout": 0.0, "options": {"base_width": 8}},
        "input": {"frames": 3 if spatial else 4, "stride": 2, "size": 32, "short_side": 36, "min_area": 0.5},
        "epochs": 2,
        "batch": {"target": 4},
        "camera": {"mode": "still"},
        "optimiser": {"lr": 0.02},
        "workers": 0,
        "threads": 1,
        "checkpoint_seconds": 0,
        "device": "cpu",
    }
