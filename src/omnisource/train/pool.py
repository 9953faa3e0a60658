"""The pool: every unit that a run may train on. `join.py` makes it from the stage tables.

A unit is what one slot of a batch holds: an image, a clip, a window of an untrimmed video (3D networks), or a
positive frame of one together with the other frames of its video (2D networks).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omnisource.clips import piece_frames

I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Kind = Literal["image", "clip", "window", "frame"]
KINDS: tuple[Kind, ...] = get_args(Kind)

POSITIVE, NEGATIVE = 1, 0
_ROWS = 65_536  # hashed at once
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Frames:
    """The 1-FPS frames of untrimmed videos, video after video: those of video v are offsets[v]:offsets[v + 1]."""

    place: I64  # of each video in the samples table, ascending
    offsets: I64
    time_s: F64
    side: I32  # POSITIVE, NEGATIVE, or -1: the teacher put it on neither side
    label: I32

    def of(self, place: int) -> tuple[F64, I32, I32]:
        """Times, sides and labels of the frames of the video at `place` in the samples table."""
        video = int(np.searchsorted(self.place, place))
        part = slice(int(self.offsets[video]), int(self.offsets[video + 1]))
        return self.time_s[part], self.side[part], self.label[part]


@dataclass(frozen=True)
class Unit:
    """One unit, as `Pool.unit` gives it."""

    source: str
    label: int
    sample_id: str
    uri: str
    kind: Kind
    start_s: float
    end_s: float | None
    fps: float | None
    num_frames: int  # of the piece; 1 for images and frames
    side: int | None
    sound: bool
    probs: tuple[float, ...] | None
    place: int  # of the sample in the samples table


@dataclass(frozen=True)
class Facts:
    """What is known of the units beside source and label, an entry a unit. -1 stands for what is unknown."""

    place: I32  # of the sample in the samples table
    file: I32  # row of `Pool.files`
    kind: I8  # position in KINDS
    start_s: F64  # of the piece of the file, or the time of the frame; -1: the whole file
    end_s: F64
    fps: F64  # of the file; -1 for images
    num_frames: I32  # of the file
    side: I32  # shorter side of the picture in pixels
    sound: npt.NDArray[np.bool_]  # every frame that was looked at decodes
    soft: I32  # row of `Pool.soft_labels`; -1: `label` is the label


FACTS: dict[str, type[np.generic]] = {
    "place": np.int32,
    "file": np.int32,
    "kind": np.int8,
    "start_s": np.float64,
    "end_s": np.float64,
    "fps": np.float64,
    "num_frames": np.int32,
    "side": np.int32,
    "sound": np.bool_,
    "soft": np.int32,
}


class Rows:
    """Record batches as one long table, of which single rows are wanted."""

    def __init__(self, pieces: Sequence[pa.RecordBatch]) -> None:
        self.pieces = list(pieces)
        self._starts = np.cumsum([0, *(piece.num_rows for piece in pieces)])

    def __getitem__(self, number: int) -> dict[str, Any]:
        piece = int(np.searchsorted(self._starts, number, side="right")) - 1
        place = number - int(self._starts[piece])
        batch = self.pieces[piece]
        return {name: batch[name][place].as_py() for name in batch.schema.names}

    def __len__(self) -> int:
        return int(self._starts[-1])


@dataclass(frozen=True)
class Pool:
    """All units of a run, in the order of sources, of the samples table and of time."""

    sources: tuple[str, ...]
    roles: tuple[str, ...]  # target or web, one a source
    classes: tuple[str, ...]
    source: I32  # (units,) position in the sources
    label: I32  # (units,) position in the classes
    digest: str  # of everything but the places of the files: the identity of this list
    frames: Frames | None
    facts: Facts = field(repr=False)
    files: Rows = field(repr=False)  # sample_id, uri
    soft_labels: Rows = field(repr=False)  # probs

    @classmethod
    def from_rows(
        cls, sources: Sequence[str], roles: Sequence[str], classes: Sequence[str], rows: Sequence[dict[str, Any]]
    ) -> "Pool":
        """A pool of units that lie in no tables.

        Args:
            rows: sorted by source; `source`, `label`, `sample_id`, `uri`, `kind` and whatever else of Facts (`file`
                aside) is known, and `probs` for a soft label.
        """
        soft = [row["probs"] for row in rows if row.get("probs") is not None]
        numbers = iter(range(len(soft)))
        known: dict[str, list[Any]] = {"file": list(range(len(rows)))}
        known["kind"] = [KINDS.index(row["kind"]) for row in rows]
        known["sound"] = [bool(row.get("sound")) for row in rows]
        known["soft"] = [-1 if row.get("probs") is None else next(numbers) for row in rows]
        for name in ("place", "start_s", "end_s", "fps", "num_frames", "side"):
            known[name] = [-1 if row.get(name) is None else row[name] for row in rows]
        facts = Facts(**{name: np.array(known[name], kind) for name, kind in FACTS.items()})
        source, label = (np.array([row[name] for row in rows], np.int32) for name in ("source", "label"))
        names = {name: pa.array([row[name] for row in rows], pa.string()) for name in ("sample_id", "uri")}
        soft_labels = Rows([pa.record_batch({"probs": pa.array(soft, pa.list_(pa.float32()))})] if soft else [])
        files = Rows([pa.record_batch(names)])
        return cls(
            sources=tuple(sources),
            roles=tuple(roles),
            classes=tuple(classes),
            source=source,
            label=label,
            digest=digest_units(files, facts.file, source, label, facts, soft_labels),
            frames=None,
            facts=facts,
            files=files,
            soft_labels=soft_labels,
        )

    def __len__(self) -> int:
        return len(self.label)

    def unit(self, number: int) -> Unit:
        """Everything about one unit."""
        facts = self.facts
        file, kind = self.files[int(facts.file[number])], KINDS[facts.kind[number]]
        start_s, end_s = max(float(facts.start_s[number]), 0.0), _known(float(facts.end_s[number]))
        fps, total = _known(float(facts.fps[number])), _known(int(facts.num_frames[number]))
        soft = int(facts.soft[number])
        return Unit(
            source=self.sources[self.source[number]],
            label=int(self.label[number]),
            sample_id=file["sample_id"],
            uri=file["uri"],
            kind=kind,
            start_s=start_s,
            end_s=end_s,
            fps=fps,
            num_frames=1 if kind in ("image", "frame") else piece_frames(start_s, end_s, fps, total),
            side=_known(int(facts.side[number])),
            sound=bool(facts.sound[number]),
            probs=tuple(self.soft_labels[soft]["probs"]) if soft >= 0 else None,
            place=int(facts.place[number]),
        )

    @property
    def soft(self) -> bool:
        """Whether some unit has a soft pseudo-label."""
        return bool((self.facts.soft >= 0).any())

    @property
    def has_images(self) -> bool:
        """Whether some unit is an image."""
        return bool((self.facts.kind == KINDS.index("image")).any())

    def counts(self) -> dict[str, int]:
        """Units of each source."""
        found = np.bincount(self.source, minlength=len(self.sources))
        return {name: int(count) for name, count in zip(self.sources, found, strict=True)}


def digest_units(ids: Rows, sample: I32, source: I32, label: I32, facts: Facts, soft_labels: Rows) -> str:
    """A hash of units in their order: everything that training depends on but the places of the files.

    It does not depend on how the ids are cut into pieces.

    Args:
        ids: `sample_id` of samples.
        sample: row of each unit's sample.
    """
    used = np.zeros(len(ids), np.bool_)
    used[sample] = True
    whole, text, lengths = (hashlib.blake2b(digest_size=8) for _ in range(3))
    at = 0
    for piece in ids.pieces:
        names = piece["sample_id"].filter(pa.array(used[at : at + len(piece)]))
        if len(names):
            _, offsets, content = names.buffers()
            edges = np.frombuffer(offsets, np.int32, len(names) + 1, 4 * names.offset)
            text.update(memoryview(content)[edges[0] : edges[-1]])
            lengths.update(np.diff(edges).tobytes())
        at += len(piece)
    whole.update(text.digest() + lengths.digest())
    columns: list[tuple[npt.NDArray[Any], str]] = [
        (np.cumsum(used, dtype=np.int32)[sample], "i4"),
        (source, "i4"),
        (label, "i4"),
        (facts.start_s, "f8"),
        (facts.end_s, "f8"),
        (facts.fps, "f8"),
        (facts.num_frames, "i4"),
    ]
    for column, kind in columns:
        for start in range(0, len(column), _ROWS):
            whole.update(column[start : start + _ROWS].astype(kind).tobytes())
    if len(soft := facts.soft[facts.soft >= 0]):
        probs = pa.Table.from_batches(soft_labels.pieces)["probs"].take(pa.array(soft))
        for chunk in probs.chunks:
            whole.update(chunk.flatten().to_numpy().tobytes())
    return whole.hexdigest()


def _known(value: Number) -> Number | None:
    return None if value == -1 else value
