"""The loader: what fails is quarantined, reported and replaced by the plan's next; nothing else changes."""

import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from train_small import Small, settings

from omnisource.errors import UserError
from omnisource.media import DEFAULT_LIMITS, Failure, MediaError
from omnisource.recipe import Training
from omnisource.tables import read_table, write_table
from omnisource.train import Plan, build_pool
from omnisource.train.decode import Reading
from omnisource.train.loader import Batch, Loader, Quarantine, Replacement


def plan_of(small: Small, sources: list[str] | None = None, **changes: object) -> tuple[Plan, Reading]:
    training = Training.model_validate(settings("slowonly_r18") | changes)
    pool = build_pool(small.recipe, small.workspace, sources or list(small.recipe.sources), False)
    return Plan(pool, training, 3), Reading(training, False, None, pool.frames, pool.classes, DEFAULT_LIMITS)


def read(small: Small, folder: Path, workers: int, steps: int = 8, **limits: float) -> list[Batch]:
    plan, reading = plan_of(small)
    with Loader(plan, reading, Quarantine(folder), workers=workers, **limits) as loader:  # type: ignore[arg-type]
        return list(loader.batches(0, steps))


def equal(one: Batch, other: Batch) -> bool:
    return (
        np.array_equal(one.unit, other.unit)
        and one.replaced == other.replaced
        and len(one.groups) == len(other.groups)
        and all(
            np.array_equal(a.pixels, b.pixels) and np.array_equal(a.rows, b.rows)
            for a, b in zip(one.groups, other.groups, strict=True)
        )
    )


def test_batches_do_not_depend_on_who_reads_them(small_tables: Small, tmp_path: Path) -> None:
    here, there = read(small_tables, tmp_path, 0), read(small_tables, tmp_path, 3)
    assert all(equal(a, b) for a, b in zip(here, there, strict=True))
    assert [(group.pixels.shape, group.pixels.dtype) for group in here[0].groups] == [
        ((8, 4, 32, 32, 3), np.uint8),
        ((2, 1, 32, 32, 3), np.uint8),
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_quarantined_and_replaced(small: Small, tmp_path: Path, workers: int) -> None:
    plan, _ = plan_of(small)
    whole = read(small, tmp_path / "whole", workers)
    broken = [int(plan.step(0).unit[1]), int(plan.step(1).unit[5])]
    for number in broken:
        Path(plan.pool.unit(number).uri).write_bytes(b"nothing that a decoder knows")
    batches = read(small, tmp_path / "broken", workers)
    replaced = [one for batch in batches for one in batch.replaced]
    assert {one.unit for one in replaced} == set(broken)
    for batch, before in zip(batches, whole, strict=True):
        bad = np.isin(before.unit, broken)
        assert np.array_equal(batch.unit[~bad], before.unit[~bad])
        assert not np.isin(batch.unit, broken).any()
        assert (plan.pool.source[batch.unit] == plan.pool.source[before.unit]).all()
    for one in replaced:
        attempts = [plan.replacement(one.step, one.slot, attempt) for attempt in range(1, 20)]
        assert one.by == next(unit for unit in attempts if unit not in broken)
    rows = [json.loads(line) for line in (tmp_path / "broken" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(row["unit"] for row in rows) == sorted(broken)
    assert {row["reason"] for row in rows} == {"not_media"}
    # Another reader of the same run knows of them and finds the same batches.
    assert all(equal(a, b) for a, b in zip(batches, read(small, tmp_path / "broken", 0), strict=True))


def test_each_rank_tells_of_its_own_slots_alone(small_tables: Small, tmp_path: Path) -> None:
    """A unit is read wherever it is mixed in, too; the log of all ranks is that of one."""
    plan, reading = plan_of(small_tables, mixup={"kind": "within"})
    slots = plan.step(0)
    slot = next(number for number in range(len(slots)) if (slots.partner[number] - number) % 2)
    bad = plan.pool.unit(number := int(slots.unit[slots.partner[slot]]))  # both of two ranks read it

    def told(rank: int, world: int) -> list[Replacement]:
        quarantine = Quarantine(tmp_path / f"{rank}-of-{world}")
        quarantine.add(number, 0, Failure("not_media", "broken"), bad.sample_id, bad.uri)
        with Loader(plan, reading, quarantine, workers=0, rank=rank, world=world) as loader:
            return next(loader.batches(0, 1)).replaced

    alone, shares = told(0, 1), told(0, 2) + told(1, 2)
    assert len(alone) == 1 and shares == alone


class FarAhead:
    """In the pool's place: everything that may be on its way is decoded before the first of it is handed back."""

    def __init__(self, workers: int, timeout_s: float, memory_bytes: int) -> None:
        self.ahead = 4 * workers

    def map(self, function: Callable[[Any], Any], items: Iterator[Any], *, ordered: bool) -> Iterator[tuple[Any, Any]]:
        done: deque[tuple[Any, Any]] = deque()
        while True:
            for item in islice(items, self.ahead - len(done)):
                try:
                    done.append((item, function(item)))
                except MediaError as error:
                    done.append((item, Failure(error.reason, error.message)))
            if not done:
                return
            yield done.popleft()

    def close(self) -> None:
        """There is nothing to end."""


def test_the_steps_behind_broken_files_keep_their_pixels(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a step waits for a replacement others finish, and their memory is used again: by one step at a time."""
    plan, reading = plan_of(small, ["clips"])
    for step in (0, 3):  # the first leaves free memory behind, the second has several steps ask for some at once
        Path(plan.pool.unit(int(plan.step(step).unit[3])).uri).write_bytes(b"nothing that a decoder knows")
    here = list(Loader(plan, reading, Quarantine(tmp_path / "here"), workers=0).batches(0, 12))
    monkeypatch.setattr("omnisource.train.loader.IsolatedPool", FarAhead)
    with Loader(plan, reading, Quarantine(tmp_path / "there"), workers=2) as loader:
        there = list(loader.batches(0, 12))
    assert here[0].replaced and here[3].replaced
    assert [equal(a, b) for a, b in zip(here, there, strict=True)] == [True] * 12


def test_a_decode_past_its_time_is_killed_and_replaced(small: Small, tmp_path: Path) -> None:
    """A file on a server that takes the call and never answers."""
    plan, _ = plan_of(small)
    number = int(plan.step(0).unit[0])
    path = plan.pool.unit(number).uri
    with socket.create_server(("127.0.0.1", 0)) as server:  # the system accepts calls that nobody answers
        table = read_table(small.workspace.table("samples"))
        silent = f"ftp://127.0.0.1:{server.getsockname()[1]}/x.mp4"
        uris = pa.array([silent if uri == path else uri for uri in table["uri"].to_pylist()])
        column = table.schema.get_field_index("uri")
        write_table(small.workspace.table("samples"), table.set_column(column, "uri", uris))
        batches = read(small, tmp_path, 2, steps=2, timeout_s=3.0)
    assert [(one.unit, one.reason) for one in batches[0].replaced] == [(number, "timeout")]


def test_when_everything_fails_it_stops_with_one_line(small: Small, tmp_path: Path) -> None:
    plan, _ = plan_of(small)
    for number in range(len(plan.pool)):
        Path(plan.pool.unit(number).uri).unlink(missing_ok=True)
    for workers in (0, 2):
        with pytest.raises(UserError, match=r"units in a row can't be read \(missing\); are the media where they were"):
            read(small, tmp_path / str(workers), workers)


def test_closing_ends_the_processes(small_tables: Small, tmp_path: Path) -> None:
    plan, reading = plan_of(small_tables)
    before = set(psutil.Process(os.getpid()).children(recursive=True))
    loader = Loader(plan, reading, Quarantine(tmp_path), workers=2)
    batches = loader.batches(0, 1000)
    next(batches)
    assert len(set(psutil.Process().children(recursive=True)) - before) == 2
    loader.close()
    assert not set(psutil.Process().children(recursive=True)) - before


def test_ranks_share_a_global_batch(small_tables: Small, tmp_path: Path) -> None:
    plan, reading = plan_of(small_tables, mixup={"kind": "cross"})
    whole = next(Loader(plan, reading, Quarantine(tmp_path), workers=0).batches(4, 5))
    parts = [
        next(Loader(plan, reading, Quarantine(tmp_path), workers=0, rank=rank, world=3).batches(4, 5))
        for rank in range(3)
    ]
    own = np.concatenate([part.slot[: part.own] for part in parts])
    assert np.array_equal(np.sort(own), np.arange(len(whole.slots)))
    for part in parts:
        assert np.isin(part.slots.partner[part.slot[: part.own]], part.slot).all()
        assert np.array_equal(part.unit, whole.unit[part.slot])
