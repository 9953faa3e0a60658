"""What is wrong with the target's own files: of no use, on both sides of the split, under two labels."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow.compute as pc

from omnisource.curate.agree import Agreement
from omnisource.curate.engine import LOCAL, Engine
from omnisource.curate.hamming import I64, Bools, keep_first
from omnisource.curate.motion import MOTION, equally_long
from omnisource.curate.samples import Sample, Samples
from omnisource.curate.twins import verify
from omnisource.media import Limits
from omnisource.progress import say
from omnisource.tables import read_table
from omnisource.workspace import Workspace

Row = dict[str, Any]

_MOST_SAID = 5  # target files that are named; the table has all
_DISTANCE = 4  # bits in which perceptual hashes of copies differ at most
_CURE = "leave them out of one split, or what is measured is how well they are remembered"


def target_faults(
    workspace: Workspace, limits: Limits, memory_bytes: int | None, engine: Engine = LOCAL
) -> dict[str, int]:
    """Names target files that are of no use; those of which a file, a copy or a group is in two splits; and those with
    two labels. The tables `samples` and `probe` are there.

    Args:
        limits, memory_bytes: as for `infer`.
        engine: where to work.

    Returns:
        For the record: of how many samples the file, or another of their group, is in the training split; how many
        training clips are copies of others, encoded anew; of how many samples the file has another label. Nothing where
        none.
    """
    columns = ["sample_id", "format", "uri", "label", "split", "group", "start_s", "end_s"]
    samples = read_table(workspace.table("samples"), columns, pc.field("role") == "target")
    mine = pc.field("sample_id").isin(samples["sample_id"].combine_chunks())  # there may be far more of the web
    facts = ["sample_id", "sha256", "status", "reason", "phash", "flags", "duration_s"]
    probed = read_table(workspace.table("probe"), facts, mine)
    flags = pc.binary_join(probed["flags"], " ")  # Arrow joins no lists
    probed = probed.drop_columns("flags").append_column("flags", flags)
    order = [("uri", "ascending"), ("sample_id", "ascending")]
    rows = samples.join(probed, "sample_id", join_type="inner").sort_by(order).to_pylist()
    _say_useless(rows)
    same = _alike(rows, "sha256", "start_s", "end_s")
    trained, together = _on_both_sides(same), _on_both_sides(_alike(rows, "group"))
    if trained:
        say(f"note: {len(trained)} test or val samples are files that are also trained on, {_first(trained)}; {_CURE}")
    if together:
        first = f"{_first(together)} of '{together[0][0]['group']}'"
        say(f"note: {len(together)} test or val samples are of groups that are also trained on, {first}; {_CURE}")
    copies = _copies(rows, workspace, limits, memory_bytes, engine)
    if copies:
        say(f"note: {len(copies)} training clips are copies of test or val clips, {_first(copies)}; {_CURE}")
    labelled = [(row, files[0]) for files in same for row in files if row["label"] != files[0]["label"]]
    if labelled:
        say(f"note: {len(labelled)} target samples are files that have another label, too, {_first(labelled)}")
    found = {
        "in_two_splits": trained,
        "of_groups_in_two_splits": together,
        "copies_in_two_splits": copies,
        "with_two_labels": labelled,
    }
    return {name: len(pairs) for name, pairs in found.items() if pairs}


def _say_useless(rows: Sequence[Row]) -> None:
    useless = [row for row in rows if row["status"] != "ok"]
    for row in useless[:_MOST_SAID]:
        say(f"left out ({row['reason']}): {row['uri']}")
    if len(useless) > _MOST_SAID:
        say(f"left out: {len(useless)} target samples in all; the probe table says which")
    lost = {row["label"] for row in rows if row["split"] == "train"}
    lost -= {row["label"] for row in rows if row["split"] == "train" and row["status"] == "ok"}
    if lost:
        say(f"note: no training file of {', '.join(sorted(lost))} is of use")


def _first(pairs: Sequence[tuple[Row, Row]]) -> str:
    one, other = pairs[0]
    return f"first {one['uri']} and {other['uri']}"


def _alike(rows: Sequence[Row], *keys: str) -> list[list[Row]]:
    """The usable rows that have the same values, together; those without the first are left out."""
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == "ok" and row[keys[0]]:
            alike.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(alike.values())


def _on_both_sides(alike: Sequence[Sequence[Row]]) -> list[tuple[Row, Row]]:
    """Each row that is not trained on, with one that is and belongs to it."""
    found = []
    for rows in alike:
        train = next((row for row in rows if row["split"] == "train"), None)
        found += [(row, train) for row in rows if row["split"] != "train" and train is not None]
    return found


def _copies(
    rows: Sequence[Row], workspace: Workspace, limits: Limits, memory_bytes: int | None, engine: Engine
) -> list[tuple[Row, Row]]:
    """Clips that are trained on, each with one that is not and of which it is a copy in another file's bytes.

    As web clips are searched for copies: by perceptual hash, length and motion, and in the end moment by moment.
    """
    videos = [row for row in rows if row["status"] == "ok" and row["format"] != "image"]
    told = [
        row for row in videos if row["phash"] and "black" not in (row["flags"] or "").split()
    ]  # of others it says nothing
    told.sort(key=lambda row: row["split"] == "train")  # the others first, so that those are found to be copies
    trained = np.array([row["split"] == "train" for row in told], bool)
    files = np.unique([row["sha256"] for row in told], return_inverse=True)[1]
    lengths = np.array([_length(row) for row in told], float)

    def possible(a: I64, b: I64) -> Bools:
        pairs: Bools = ~trained[a] & trained[b] & (files[a] != files[b]) & equally_long(lengths[a], lengths[b])
        return pairs

    @cache
    def by_id() -> dict[str, Sample]:
        return {sample.sample_id: sample for sample in Samples(workspace, "target")}

    def samples(places: Iterable[int]) -> list[Sample]:
        return [by_id()[told[place]["sample_id"]] for place in places]

    question = Agreement(MOTION, samples, limits, memory_bytes, engine.workers)
    words = np.array([int(row["phash"], 16) for row in told], np.uint64)
    twin = keep_first(words, _DISTANCE, possible, question)
    found = np.flatnonzero(twin >= 0)
    if not len(found):
        return []
    pairs = list(zip(samples(found), samples(twin[found]), strict=True))
    verdicts = dict(verify(pairs, limits, memory_bytes, engine))
    return [(told[b], told[twin[b]]) for place, b in enumerate(found) if verdicts[place]]


def _length(row: Row) -> float:
    """Seconds of a sample."""
    whole = row["duration_s"] or 0.0
    return float(min(whole, whole if row["end_s"] is None else row["end_s"]) - (row["start_s"] or 0.0))
