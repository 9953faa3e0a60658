"""What a run keeps on disk: its identity, its log, and the state from which it continues to the bit.

RUN/run.json            what the run is (settings, units, classes, seed) and how far it got
RUN/log.jsonl           losses, accuracies, rates, validations, replaced samples: the same for the same run, always
RUN/speed.jsonl         clips per second, waiting, memory: differs from machine to machine
RUN/state.pt            network, optimiser, average, scaler, step; the one before it in state.previous.pt
RUN/last.safetensors    the network; best.safetensors: at its best validation
RUN/quarantine.jsonl    units that could not be read
"""

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from omnisource.errors import UserError
from omnisource.progress import say
from omnisource.tables import write_json, writing

State = dict[str, Any]

_STATES = ("state.pt", "state.previous.pt")  # the newest first


class Log:
    """A file of JSON lines that can be cut back to where a checkpoint saw it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)  # on a full disk a buffer would fail a second time, in close

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a line."""
        line = (json.dumps(row) + "\n").encode()
        with writing(self.path):
            while line:
                line = line[self._file.write(line) :]

    def mark(self) -> int:
        """Puts everything on disk; the length so far."""
        with writing(self.path):
            os.fsync(self._file.fileno())
        return self.path.stat().st_size

    def cut(self, length: int) -> None:
        """Drops what was written after `mark` gave `length`."""
        if self.path.stat().st_size < length:
            raise UserError(f"{self.path}: shorter than the checkpoint says; delete the run to train it anew")
        self._file.truncate(length)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def save_state(folder: Path, state: State) -> None:
    """Writes the state so that, whenever the process dies, a whole one is there: the new one or the one before."""
    current, previous = (folder / name for name in _STATES)
    partial = folder / ".state.pt.tmp"
    try:
        with writing(current), partial.open("wb") as file:
            _save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if current.exists():
            current.replace(previous)
        partial.replace(current)
    finally:
        partial.unlink(missing_ok=True)


def _save(state: State, file: IO[bytes]) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # On a full disk torch fails a second time, when it ends the archive; the first failure says why.
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_state(folder: Path) -> State | None:
    """The newest whole state, on the CPU; None when there is none.

    Raises:
        UserError: states are there, but none is whole.
    """
    damage = ""
    for path in (folder / name for name in _STATES):
        try:
            with zipfile.ZipFile(path) as archive:
                if (part := archive.testzip()) is not None:  # torch does not look at its own checksums
                    raise zipfile.BadZipFile(f"{part} is damaged")
            state: State = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            continue
        except Exception as error:  # a damaged pickle raises whatever it likes
            what = str(error).partition("\n")[0]
            damage = damage or f"{path}: not readable ({what})"
            continue
        if damage:
            say(f"{damage}; the training goes on from the one before it")
        return state
    if damage:
        raise UserError(f"{damage}; put a copy back, or delete it to train from the start")
    return None


def has_state(folder: Path) -> bool:
    """Whether there is a state, whole or not."""
    return any((folder / name).exists() for name in _STATES)


def clear(folder: Path) -> None:
    """Removes what a finished run needs no more: its states, and what killed processes left half written."""
    for pattern in (*_STATES, ".*.part", ".*.tmp"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def read_run(folder: Path) -> dict[str, Any] | None:
    """run.json, or None."""
    path = folder / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(found, dict) and isinstance(found.get("identity"), dict) and "finished" in found):
            raise ValueError("not the facts of a run")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable ({error}); delete the run's folder to train it anew") from None
    return found


def write_run(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes run.json."""
    write_json(folder / "run.json", content)


def set_aside(folder: Path) -> None:
    """Moves a run out of the way, in place of the one that was moved before."""
    old = folder.with_name(f"{folder.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    folder.replace(old)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two identities, as `key: old -> new`."""
    found = []
    for key in sorted({*old, *new}):
        before, after, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{name}.")
        elif before != after:
            found.append(f"{name}: {_short(before)} -> {_short(after)}")
    return found


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
