"""TensorBoard, when it is installed (`pip install 'omnisource[tensorboard]'`)."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omnisource.tables import writing


class Board:
    """Scalars of a run for TensorBoard, in RUN/tensorboard."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def write(self, *rows: Mapping[str, Any]) -> None:
        """Adds the numbers of log lines, at the step that the first one names."""
        with writing(self._folder):
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                # What a killed run wrote from this step on is written again, and shown once.
                self._writer = SummaryWriter(str(self._folder), purge_step=rows[0]["step"])
            for row in rows:
                for name, value in _flat(row):
                    self._writer.add_scalar(name, value, rows[0]["step"])

    def close(self) -> None:
        """Writes what is left."""
        with writing(self._folder):
            if self._writer is not None:
                self._writer.close()


def open_board(folder: Path) -> Board | None:
    """A board, or None where TensorBoard is not installed."""
    return Board(folder) if find_spec("tensorboard") else None


def _flat(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            found.append((f"{prefix}{name}", float(value)))
    return found
