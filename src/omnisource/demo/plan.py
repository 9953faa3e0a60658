"""What the miniature world consists of: every file, who is in it and what is wrong with it."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from omnisource.demo import casting
from omnisource.demo.actions import ACTIONS, PASTIMES
from omnisource.demo.casting import Rng
from omnisource.demo.files import CAPTIONS, Damage, Edit
from omnisource.demo.jobs import CopyJob, DamageJob, Format, ImageJob, Job, ReuploadJob, Take, VideoJob
from omnisource.demo.scenes import Scene

CLASSES = tuple(ACTIONS)
OFF_TOPIC = "off-topic"

_DIRECTED = ("sitting down", "standing up")  # these end; the others go on as long as one films
_TRAIN_PLACES, _TEST_PLACES = ("gym", "park", "room", "street"), ("beach", "playground", "snow", "stage")
_SHAPES = ((160, 120), (160, 120), (120, 160), (192, 108), (128, 128), (176, 132))


@dataclass(frozen=True)
class WorldSize:
    """How much of everything. Clips of the target are counted per class, web files over all classes."""

    train_clips: int = 12
    test_clips: int = 20
    train_scenes: int = 6
    test_scenes: int = 12
    images: int = 240
    clips: int = 600
    untrimmed: int = 16
    width: int = 160
    height: int = 120
    fps: float = 12.5
    clip_seconds: float = 2.0
    untrimmed_seconds: tuple[float, float] = (30.0, 45.0)


@dataclass(frozen=True)
class WebMix:
    """Shares of the web's files by what is wrong with them; the rest shows what its query asked for."""

    wrong: float = 0.28
    off_topic: float = 0.13
    near_duplicate: float = 0.05
    exact_duplicate: float = 0.04
    broken: float = 0.04


@dataclass(frozen=True)
class TargetRow:
    path: str
    label: str
    split: str
    scene: str


@dataclass(frozen=True)
class Found:
    """All that one knows of a web file."""

    path: str
    query: str


@dataclass(frozen=True)
class WebRow:
    """A web file, and the truth about it."""

    path: str
    source: str
    query: str
    truth: str  # a class, or off-topic; of a broken file empty
    near_duplicate_of: str = ""
    exact_duplicate_of: str = ""
    broken: str = ""


@dataclass(frozen=True)
class Segment:
    path: str
    start_s: float
    end_s: float
    label: str


@dataclass
class Plan:
    """`filmed` jobs need nothing, `derived` ones need the files of `filmed`."""

    filmed: list[Job] = field(default_factory=list)
    derived: list[Job] = field(default_factory=list)
    target: list[TargetRow] = field(default_factory=list)
    web: list[WebRow] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)


def plan_world(size: WorldSize, seed: int, mix: WebMix) -> Plan:
    """The plan of a world: a pure function of its arguments."""
    plan = Plan()
    _plan_target(plan, size, seed)
    test = [row for row in plan.target if row.split == "test"]
    for source, count in (("images", size.images), ("clips", size.clips)):
        if count:
            _plan_short(plan, size, mix, seed, source, count, test)
    _plan_untrimmed(plan, size, mix, seed)
    return plan


def _plan_target(plan: Plan, size: WorldSize, seed: int) -> None:
    form = Format(size.width, size.height, size.fps)
    for split, places, scenes, clips in (
        ("train", _TRAIN_PLACES, size.train_scenes, size.train_clips),
        ("test", _TEST_PLACES, size.test_scenes, size.test_clips),
    ):
        sessions = []
        filmed_in = math.ceil(2 / 3 * scenes)  # as in small real datasets, a class does not occur in all places
        for index in range(scenes):
            rng = _rng(seed, split, index)
            sessions.append(casting.target_session(rng, Scene(places[index % len(places)], seed * 100 + index)))
        for kind, label in enumerate(CLASSES):
            for index in range(clips):
                rng = _rng(seed, f"{split} {label}", index)
                session = sessions[(kind + index % (filmed_in if split == "train" else scenes)) % scenes]
                path = f"target/{label}/{split}-{index:03d}.mp4"
                shot = casting.take(rng, session, label, web=False)
                plan.filmed.append(VideoJob(path, form, (Take(shot, size.clip_seconds, _start(rng, label)),)))
                plan.target.append(TargetRow(path, label, split, session.scene.name))


def _plan_short(
    plan: Plan, size: WorldSize, mix: WebMix, seed: int, source: str, count: int, test: list[TargetRow]
) -> None:
    """Web images, or web clips."""
    rng = _rng(seed, source, 0)
    fates = _fates(rng, count, mix)
    queries = _long_tail(rng, count)
    suffix = ".jpg" if source == "images" else ".mp4"
    whole: list[WebRow] = []  # what can be copied and damaged
    for index, (fate, query) in enumerate(zip(fates, queries, strict=True)):
        rng = _rng(seed, f"{source} file", index)
        path = f"{source}/{query}/{source[:-1]}-{index:04d}{suffix}"
        if fate in ("right", "wrong", "off-topic"):
            truth = {"right": query, "off-topic": OFF_TOPIC}.get(fate) or _other(rng, query)
            plan.filmed.append(_web_job(rng, path, size, truth))
            whole.append(WebRow(path, source, query, truth))
            plan.web.append(whole[-1])
        elif fate == "near_duplicate":
            of = test[int(rng.integers(len(test)))]
            path = f"{source}/{of.label}/{source[:-1]}-{index:04d}{suffix}"
            plan.web.append(WebRow(path, source, of.label, of.label, near_duplicate_of=of.path))
            plan.derived.append(_reupload(rng, path, of.path, image=source == "images"))
        else:
            of_row = whole[int(rng.integers(len(whole)))]
            path = f"{source}/{of_row.query}/{source[:-1]}-{index:04d}{suffix}"
            if fate == "exact_duplicate":
                plan.derived.append(CopyJob(path, of_row.path))
                plan.web.append(replace(of_row, path=path, exact_duplicate_of=of_row.path))
            else:
                job = _damage(rng, path, of_row.path)
                plan.derived.append(job)
                plan.web.append(WebRow(path, source, of_row.query, "", broken=job.how))


def _web_job(rng: Rng, path: str, size: WorldSize, truth: str) -> Job:
    form = _web_format(rng, size)
    title = ""
    if truth == OFF_TOPIC:
        kind = rng.random()
        if kind < 0.2:
            shot, title = None, CAPTIONS[int(rng.integers(len(CAPTIONS)))]
        elif kind < 0.5:
            shot = casting.empty_shot(rng)
        else:
            pastime = tuple(PASTIMES)[int(rng.integers(len(PASTIMES)))]
            shot = casting.take(rng, casting.web_session(rng), pastime, web=True)
    else:
        shot = casting.take(rng, casting.web_session(rng), truth, web=True)
    if path.endswith(".jpg"):
        start = casting.telling_time(rng, shot) if shot and shot.actors else 0.0
        return ImageJob(path, replace(form, fps=size.fps), Take(shot, 0.0, start, title))
    seconds = size.clip_seconds * rng.uniform(0.9, 1.5)
    return VideoJob(path, form, (Take(shot, seconds, _start(rng, truth), title),))


def _plan_untrimmed(plan: Plan, size: WorldSize, mix: WebMix, seed: int) -> None:
    """Videos with idle time: each shows its query a few times, some show other classes too, some nothing."""
    rng = _rng(seed, "untrimmed", 0)
    doomed = math.ceil(mix.broken * size.untrimmed) if size.untrimmed > 1 else 0
    broken = set((1 + rng.choice(size.untrimmed - 1, doomed, replace=False)).tolist()) if doomed else set()
    whole = ""
    for index in range(size.untrimmed):
        rng, query = _rng(seed, "untrimmed file", index), CLASSES[index % len(CLASSES)]
        path = f"untrimmed/{query}/untrimmed-{index:04d}.mp4"
        if index in broken:
            job = _damage(rng, path, whole)
            plan.derived.append(job)
            plan.web.append(WebRow(path, "untrimmed", query, "", broken=job.how))
            continue
        takes, segments = _story(rng, size, query, off_topic=bool(rng.random() < mix.off_topic))
        form = replace(_web_format(rng, size), caption="", fps=size.fps)
        plan.filmed.append(VideoJob(path, form, tuple(takes)))
        plan.segments.extend(Segment(path, start, end, label) for start, end, label in segments)
        shown = any(label == query for _, _, label in segments)
        plan.web.append(WebRow(path, "untrimmed", query, query if shown else OFF_TOPIC))
        whole = path


def _story(rng: Rng, size: WorldSize, query: str, off_topic: bool) -> tuple[list[Take], list[tuple[float, float, str]]]:
    """The takes of an untrimmed video, and what is to be seen in it when, in seconds."""
    session = casting.web_session(rng)
    wanted = rng.uniform(*size.untrimmed_seconds)
    takes: list[Take] = []
    segments: list[tuple[float, float, str]] = []
    now = 0.0

    def add(take: Take) -> None:
        nonlocal now
        seconds = round(take.seconds * size.fps) / size.fps
        takes.append(replace(take, seconds=seconds))
        now += seconds

    if rng.random() < 0.4:
        add(Take(None, rng.uniform(1.5, 3), title=CAPTIONS[int(rng.integers(len(CAPTIONS)))]))
    while now < wanted:
        if rng.random() < 0.25:
            session = casting.web_session(rng)
        pastime = tuple(PASTIMES)[int(rng.integers(len(PASTIMES)))]
        add(Take(casting.take(rng, session, pastime, web=True), rng.uniform(3, 8)))
        if now >= wanted:
            break
        if off_topic and rng.random() < 0.7:
            add(Take(casting.empty_shot(rng), rng.uniform(3, 6)))
            continue
        asked = not off_topic and (not segments or rng.random() < 0.75)
        label = query if asked else _other(rng, query)
        began = now
        for _ in range(int(rng.integers(3, 5)) if label in _DIRECTED else 1):
            seconds = size.clip_seconds * 1.05 if label in _DIRECTED else rng.uniform(5, 9)
            add(Take(casting.take(rng, session, label, web=True), seconds, _start(rng, label)))
        segments.append((began, now, label))
    return takes, segments


def _web_format(rng: Rng, size: WorldSize) -> Format:
    width, height = _SHAPES[int(rng.integers(len(_SHAPES)))]
    scale = rng.uniform(0.85, 1.25) * size.width / 160
    caption = CAPTIONS[int(rng.integers(len(CAPTIONS)))] if rng.random() < 0.2 else ""
    return Format(
        round(width * scale / 2) * 2, round(height * scale / 2) * 2, fps=float(rng.choice([10, 12.5, 15])),
        caption=caption, bars=0.12 if rng.random() < 0.1 else 0.0, quality=int(rng.integers(20, 32)),
    )  # fmt: skip


def _reupload(rng: Rng, path: str, of: str, image: bool) -> ReuploadJob:
    edits: tuple[Edit, ...] = get_args(Edit)
    edit = edits[int(rng.integers(len(edits) - int(image)))]  # one frame cannot be shortened
    caption = CAPTIONS[int(rng.integers(len(CAPTIONS)))]
    return ReuploadJob(path, of, edit, caption, rng.uniform() if image else None)


def _damage(rng: Rng, path: str, of: str) -> DamageJob:
    ways: tuple[Damage, ...] = get_args(Damage)
    return DamageJob(path, of, ways[int(rng.integers(len(ways)))], int(rng.integers(1 << 30)))


def _fates(rng: Rng, count: int, mix: WebMix) -> list[str]:
    """What becomes of each file, in random order but for the first, which can be copied."""
    fates = [name for name, share in vars(mix).items() for _ in range(round(share * count))]
    fates = [name.replace("off_topic", "off-topic") for name in fates]
    fates += ["right"] * (count - len(fates))
    return ["right", *(fates[at] for at in rng.permutation(count - 1))]


def _long_tail(rng: Rng, count: int) -> list[str]:
    """Queries in proportion to 1 / rank^0.5; which class is how rare differs by source."""
    weights = 1 / np.arange(1, len(CLASSES) + 1) ** 0.5
    ranks = rng.choice(len(CLASSES), count, p=weights / weights.sum())
    order = rng.permutation(len(CLASSES))
    return [CLASSES[order[rank]] for rank in ranks]


def _other(rng: Rng, query: str) -> str:
    return tuple(name for name in CLASSES if name != query)[int(rng.integers(len(CLASSES) - 1))]


def _start(rng: Rng, label: str) -> float:
    return 0.0 if label in _DIRECTED else rng.uniform(0, 2)


def _rng(seed: int, what: str, index: int) -> Rng:
    return np.random.default_rng([seed, index, *what.encode()])


def counts(rows: list[WebRow]) -> dict[str, Counter[str]]:
    """Per source, how many files are right, wrong, off-topic, doubled or broken."""
    table: dict[str, Counter[str]] = {}
    for row in rows:
        fate = (
            "broken" if row.broken
            else "near-duplicate" if row.near_duplicate_of
            else "exact duplicate" if row.exact_duplicate_of
            else OFF_TOPIC if row.truth == OFF_TOPIC
            else "right" if row.truth == row.query
            else "wrong"
        )  # fmt: skip
        table.setdefault(row.source, Counter())[fate] += 1
    return table
