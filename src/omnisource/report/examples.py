"""Thumbnails: what was kept, what was dropped and why, so that a person can look instead of believing a number."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from omnisource.media import Failure, IsolatedPool, decode_frames, decode_image, sniff
from omnisource.progress import printable
from omnisource.report.numbers import Row, Story

_SIDE = 112  # pixels, short side of a thumbnail
_STRIP = (0.2, 0.5, 0.8)  # of a clip's frames that a strip shows
_JPEG = [int(cv2.IMWRITE_JPEG_QUALITY), 80]


@dataclass(frozen=True)
class Example:
    """One picture of the report: a still, or three frames of a clip side by side."""

    picture: str  # data URI; empty when the file shows nothing
    title: str
    lines: list[str]  # HTML where one is Markup
    good: bool | None = None  # right or wrong by the truth; None: unknown
    twin: str = ""  # data URI of the file that a duplicate repeats


@dataclass(frozen=True)
class Gallery:
    """Examples of one fate in one source."""

    source: str
    title: str
    examples: list[Example]
    total: int

    @property
    def pairs(self) -> bool:
        """Whether the examples stand beside their twins."""
        return any(example.twin for example in self.examples)


@dataclass(frozen=True)
class _Wanted:
    path: str
    start_s: float | None
    end_s: float | None
    num_frames: int | None  # of the whole file
    fps: float | None


def galleries(story: Story, each: int) -> list[Gallery]:
    """Kept, dropped by the teacher, near-duplicates with their twins, and broken files: `each` of every kind."""
    plans: list[tuple[str, str, list[tuple[Row, Row | None]]]] = []
    for source in story.recipe.web_sources:
        units = [
            (story.samples[i], unit)
            for i, found in story.decisions.items()
            for unit in found
            if unit["source"] == source
        ]
        plans.append((source, "kept", [pair for pair in units if pair[1]["keep"] and not pair[1]["negative"]]))
        plans.append(
            (source, "dropped by the teacher", [p for p in units if not p[1]["keep"] and not p[1]["negative"]])
        )
        for step, title in (("readable", "dropped as duplicate"), ("collected", "dropped as broken")):
            rows = [row for i, row in story.samples.items() if row["source"] == source and story.fate(i)[0] == step]
            plans.append((source, title, [(row, None) for row in rows]))
    chosen = [(source, title, _spread(pairs, each), len(pairs)) for source, title, pairs in plans if pairs]
    wanted = [_wanted(story, row, unit) for _, _, pairs, _ in chosen for row, unit in pairs]
    twins = [twin for _, _, pairs, _ in chosen for row, unit in pairs if unit is None and (twin := _twin(story, row))]
    pictures = _pictures([*wanted, *(_wanted(story, twin, None) for twin in twins)])
    shown, beside = iter(pictures[: len(wanted)]), iter(pictures[len(wanted) :])
    return [
        Gallery(
            source,
            title,
            [
                _example(story, row, unit, next(shown), next(beside) if unit is None and _twin(story, row) else "")
                for row, unit in pairs
            ],
            total,
        )
        for source, title, pairs, total in chosen
    ]


def _twin(story: Story, row: Row) -> Row | None:
    found = story.duplicates.get(row["sample_id"])
    return story.everything.get(found["twin_id"]) if found and found["status"] != "ok" else None


def _spread(pairs: Sequence[tuple[Row, Row | None]], count: int) -> list[tuple[Row, Row | None]]:
    """A few of many, of as many classes as possible, the same ones every time."""
    by_class: dict[str, list[tuple[Row, Row | None]]] = {}
    for row, unit in sorted(pairs, key=lambda pair: hashlib.sha256(_name(*pair).encode()).digest()):
        by_class.setdefault(row["query_label"] or "", []).append((row, unit))
    rounds = max(len(found) for found in by_class.values())
    return [found[n] for n in range(rounds) for _, found in sorted(by_class.items()) if n < len(found)][:count]


def _name(row: Row, unit: Row | None) -> str:
    return f"{row['sample_id']} {unit['start_s'] if unit else ''}"


def _wanted(story: Story, row: Row, unit: Row | None) -> _Wanted:
    probed = story.probe.get(row["sample_id"], {})
    piece = unit or row
    start, end = piece.get("start_s"), piece.get("end_s")
    if unit is not None and unit["unit"] == "frame" and start is not None:
        end = start + 0.001  # a single frame: the one on the screen at this time
    return _Wanted(row["uri"], start, end, probed.get("num_frames"), probed.get("fps"))


def picture(wanted: _Wanted) -> bytes:
    """JPEG of a thumbnail. Runs in a worker that may be killed: the file may be hostile."""
    if sniff(wanted.path).family == "image":
        strip = decode_image(wanted.path, short_side=_SIDE)
    else:
        count = wanted.num_frames or 1
        if wanted.start_s is not None:
            seconds = (wanted.end_s or wanted.start_s + 1) - wanted.start_s
            count = max(1, round(seconds * (wanted.fps or 25)))
        indices = [int(share * (count - 1)) for share in _STRIP] if count > 2 else [0]
        frames = decode_frames(
            wanted.path, indices, start_s=wanted.start_s or 0.0, end_s=wanted.end_s, short_side=_SIDE
        )
        strip = np.concatenate(list(frames), axis=1)
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(strip, cv2.COLOR_RGB2BGR), _JPEG)[1])


def _pictures(wanted: Sequence[_Wanted]) -> list[str]:
    with IsolatedPool(workers=2, timeout_s=20.0) as pool:
        results = [result for _, result in pool.map(picture, wanted, ordered=True)]
    return ["" if isinstance(result, Failure) else data_uri(result) for result in results]


def data_uri(jpeg: bytes) -> str:
    """A JPEG as a URI that needs no file."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _example(story: Story, row: Row, unit: Row | None, image: str, twin: str) -> Example:
    query = row["query_label"] or "(no query)"
    where = "" if unit is None or unit["start_s"] is None else f" at {unit['start_s']:.0f} s"
    lines: list[str] = [Markup("found for: {}{}").format(_apart(query), where)]
    good = None
    if unit is not None:
        shown = story.shown(row["sample_id"], unit)
        # A kept unit is right when its label is shown; a dropped one when its query is not.
        good = None if shown is None else (unit["label"] in shown) if unit["keep"] else query not in shown
        lines.append(_verdict(unit))
    else:
        lines += [_reason(story, row["sample_id"]), _apart(Path(row["uri"]).name)]
    return Example(image, (unit or {}).get("label") or query, lines, good, twin)


def _apart(name: str) -> Markup:
    """A name as HTML, such that one written from right to left leaves what stands beside it in its place."""
    return Markup("<bdi>{}</bdi>").format(printable(name))


def _verdict(unit: dict[str, Any]) -> str:
    confidence = unit["confidence"]
    sure = "" if confidence is None else f" ({confidence:.2f})"
    by = " by a person" if unit["decided_by"] == "human" else ""
    said = Markup("kept as {}").format(_apart(unit["label"])) if unit["keep"] else _words(unit["reason"])
    return said + sure + by


def _reason(story: Story, sample_id: str) -> str:
    twin = story.duplicates.get(sample_id)
    if twin is not None and twin["status"] != "ok":
        likeness = "" if twin["similarity"] is None else f", similarity {twin['similarity']:.3f}"
        return f"{_words(twin['reason'])} by {twin['rule']}{likeness}"
    return _words(story.fate(sample_id)[1])


def _words(code: str | None) -> str:
    return (code or "dropped").replace("_", " ")
