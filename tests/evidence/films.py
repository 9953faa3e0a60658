"""Films and lists as the tests of the evidence lay them out."""

import csv
from pathlib import Path

import numpy as np

from omnisource.media import write_video


def film(path: Path, label: int, number: int) -> None:
    """A colour that drifts: its hue is the class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(number)
    ground = random.integers(0, 90, (48, 64, 3), np.uint8)
    ground[..., label] += 120
    frames = ((n / 8, np.roll(ground, n * (1 + label), axis=1)) for n in range(12))
    write_video(path, frames, options={"crf": "24", "preset": "ultrafast"})


def table(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
