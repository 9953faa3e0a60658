"""How close web samples come to what the target is tested on: whitened trunk features of frames (paper, 3.1)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omnisource.curate.embed import F16, Trunk, embed, feature_blocks, frames_of
from omnisource.curate.engine import LOCAL, Engine
from omnisource.curate.pieces import Piece
from omnisource.curate.samples import Sample
from omnisource.curate.twins import verify
from omnisource.curate.whiten import F32, Whitening, fit_whitening
from omnisource.infer import Request
from omnisource.media import Limits
from omnisource.progress import track
from omnisource.recipe import Recipe
from omnisource.tables import Journal

_FIT_ROWS = 50_000  # frames of the web from which the whitening is estimated
_THRESHOLD_FRAMES = 200  # of the test set, whose crops give the threshold
_CROPS = 5
_UNRELATED = 200  # samples of the target's training split, which show what is merely alike
_ALIKE = 0.99  # of them lie below the similarity that counts as chance
_SEARCHED = 50_000  # frames whitened at a time
_NEIGHBOURS = 32  # frames of the test set that are found for a frame
_AGAIN_FROM = 0.5  # of the threshold: what is so close is looked at again
_TWINS = 4  # test samples that a web sample is compared with again at most
_AGREEING = 2  # frames of a video that must resemble the same test video


@dataclass(frozen=True)
class Closeness:
    """What `compare` found."""

    closest: dict[str, tuple[str, float]]
    """Web sample -> the test sample of which it is a copy, else the one it resembles most, and their similarity."""
    copies: set[str]
    """Web samples that are to go."""
    threshold: float
    measured: dict[str, Any]


def compare(
    recipe: Recipe,
    held_out: Sequence[Sample],
    unrelated: Sequence[Sample],
    web: pa.Table,
    journal: Journal,
    folder: Path,
    engine: Engine = LOCAL,
) -> Closeness:
    """Finds for every web sample the most similar frame of the test set, as it is and mirrored.

    The paper's threshold is the mean similarity between different crops of the same frame of the target. How much such
    crops share depends on the shape of the frames, so `auto` goes half the way from there to the similarity that other
    films reach by chance: the highest to any test frame, of the target's training samples (99 % of them lie below).
    Where chance reaches further than crops do, as among films of one place, it lies above the paper's. Similarities are
    cosines of whitened features; the search is exact. What comes near is then compared moment by moment
    (`dedupe.second_look`).

    Args:
        held_out: the target's val and test samples.
        unrelated: samples of the target that are in neither; may be empty.
        web: the samples to look at: a table of the fields of Sample.
        journal, folder: where features of the web are kept until the end, so that a killed stage resumes.
    """
    settings = recipe.dedupe
    trunk = Trunk(recipe, engine.workers)
    requests = [request for sample in held_out for request in frames_of(sample, settings.test_frames)]
    ids, features = _look(trunk, [replace(r, flip=flip) for flip in (False, True) for r in requests])
    embed(recipe, web, journal, engine, "frames of the web")
    upright = features[: len(features) // 2]
    some = unrelated[:: max(1, len(unrelated) // _UNRELATED)]
    of_others, others = _look(trunk, [request for sample in some for request in frames_of(sample, settings.frames)])
    fitted = upright[:: max(1, len(upright) // _FIT_ROWS)]
    drawn = _drawn(folder, web["sample_id"], recipe.seed, features.shape[1])
    whitening = fit_whitening(np.concatenate([fitted, others, drawn]))
    index = _index(features, whitening)
    measured: dict[str, Any] = {"dimensions": whitening.matrix.shape[1], "test_frames": len(upright)}
    threshold = settings.threshold
    if threshold == "auto":
        similarities = _between_crops(trunk, requests, whitening)
        threshold = crops = float(similarities.mean())
        measured |= {"crop_pairs": len(similarities), "crop_similarity": crops}
        if len(others):
            alike = _nearest(of_others, others, ids, whitening, index)
            reached = [alike[name][0][1] if name in alike else -1.0 for name in sorted(set(of_others))]
            chance = float(np.quantile(reached, _ALIKE))
            threshold = (crops + chance) / 2
            measured |= {"unrelated": len(reached), "chance_similarity": chance}
    nearest = _all_nearest(ids, index, whitening, folder)
    closest = {name: twins[0] for name, twins in nearest.items()}
    if not settings.second_look:
        copies = {name for name, (_, similarity) in closest.items() if similarity >= threshold}
        return Closeness(closest, copies, float(threshold), measured)
    found, compared = _second_look(recipe, web, held_out, nearest, float(threshold), engine)
    return Closeness(closest | found, set(found), float(threshold), measured | {"pairs_looked_at_again": compared})


def _second_look(
    recipe: Recipe,
    web: pa.Table,
    held_out: Sequence[Sample],
    nearest: Mapping[str, Sequence[tuple[str, float]]],
    threshold: float,
    engine: Engine,
) -> tuple[dict[str, tuple[str, float]], int]:
    """The copies, each with its test sample and their similarity, and how many pairs were compared moment by moment.

    Pairs that are closer than half the threshold, as badly encoded, cropped or subtitled copies lie far below it. Where
    it can't be told, the threshold decides.
    """
    pairs = [
        (twin, name, similarity)
        for name, twins in nearest.items()
        for twin, similarity in twins
        if similarity >= threshold * _AGAIN_FROM
    ]
    pairs.sort()  # those of one test sample together: it is read once
    rows = web.take(pc.index_in(pa.array([name for _, name, _ in pairs], pa.string()), web["sample_id"])).to_pylist()
    tests = {sample.sample_id: sample for sample in held_out}
    shown = [(Sample(**row), tests[twin]) for row, (twin, _, _) in zip(rows, pairs, strict=True)]
    limits = recipe.probe.limits
    verdicts = dict(track(verify(shown, Limits.of(limits), limits.memory_bytes, engine), len(pairs), "second look"))
    copies: dict[str, tuple[str, float]] = {}
    for place, (twin, name, similarity) in enumerate(pairs):
        copy = verdicts[place]
        is_one = similarity >= threshold if copy is None else copy
        if is_one and similarity > copies.get(name, ("", -1.0))[1]:
            copies[name] = twin, similarity
    return copies, len(pairs)


def _look(trunk: Trunk, requests: Iterable[Request]) -> tuple[list[str], F16]:
    """Sample ids (N,) and features (N, D) of all views that can be decoded."""
    ids: list[str] = []
    features: list[F16] = []
    for request, found, _ in trunk.look(requests):
        if found is not None:
            assert isinstance(request.key, Piece)
            ids += [request.key.sample.sample_id] * len(found)
            features.append(found)
    return ids, np.concatenate(features) if features else np.empty((0, trunk.network.feature_dim), np.float16)


def _drawn(folder: Path, web: pa.ChunkedArray, seed: int, dimensions: int) -> F16:
    """Random frames of the web, (N, D), so many that the whitening is well estimated.

    Which, and their order, follows from the order of the samples `web`, not from that in which their features were
    written: on a cluster they come in any.
    """
    names = np.array(web.to_pylist(), np.bytes_)
    by_name = np.argsort(names)
    frames = np.zeros(len(names), np.int64)  # of each sample

    def places(ids: Sequence[str]) -> npt.NDArray[np.intp]:
        found: npt.NDArray[np.intp] = by_name[np.searchsorted(names, np.array(ids, np.bytes_), sorter=by_name)]
        return found

    for ids, _ in feature_blocks(folder):
        np.add.at(frames, places(ids), 1)
    starts = np.cumsum(frames) - frames
    kept = np.random.default_rng(seed).random(frames.sum()) < _FIT_ROWS / max(frames.sum(), 1)
    numbers, drawn = [np.empty(0, np.int64)], [np.empty((0, dimensions), np.float16)]
    for ids, features in feature_blocks(folder):
        place = places(ids)
        begins = np.r_[True, place[1:] != place[:-1]]  # the frames of a sample stand together
        first = np.maximum.accumulate(np.where(begins, np.arange(len(place)), 0))
        number = starts[place] + np.arange(len(place)) - first
        numbers.append(number[kept[number]])
        drawn.append(features[kept[number]])
    return np.concatenate(drawn)[np.argsort(np.concatenate(numbers))]


def _between_crops(trunk: Trunk, requests: Sequence[Request], whitening: Whitening) -> F32:
    """Similarities of different crops of one frame, for some frames of the test set."""
    step = max(1, len(requests) // _THRESHOLD_FRAMES)
    crops = [replace(request, clips=request.clips[:1], crops=_CROPS) for request in requests[::step]]
    _, features = _look(trunk, crops)
    views = whitening(features).reshape(-1, _CROPS, whitening.matrix.shape[1])
    first, second = np.triu_indices(_CROPS, 1)
    similar: F32 = np.einsum("npd,npd->np", views[:, first], views[:, second]).ravel()
    return similar


def _index(features: F16, whitening: Whitening) -> Any:
    """The frames of the test set, to be searched."""
    index: Any = faiss.IndexFlatIP(whitening.matrix.shape[1])
    if hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_all_gpus(index)
    for first in range(0, len(features), _SEARCHED):
        index.add(whitening(features[first : first + _SEARCHED]))
    return index


def _nearest(
    samples: Sequence[str], features: F16, owners: Sequence[str], whitening: Whitening, index: Any
) -> dict[str, list[tuple[str, float]]]:
    """Sample -> the test samples that it resembles most, and how much; one that resembles none is left out.

    A picture is compared by its one frame. Of a video two frames must resemble the same test video, and the less
    similar one counts: a single frame among many often comes close to some frame by chance.

    Args:
        samples: (N,) whose frames the features are.
        features: (N, D).
        owners: the test sample of each frame of the index.
    """
    similarity, place = index.search(whitening(features), min(_NEIGHBOURS, index.ntotal))
    names, owner = np.unique(np.array(owners), return_inverse=True)
    ids, sample = np.unique(np.array(samples), return_inverse=True)
    test = owner[place]
    # Neighbours come most similar first, so the first of each test sample is the best that a frame has of it.
    row = np.arange(len(sample))[:, None]
    first = np.unique(row * len(names) + test, return_index=True)[1]
    sample_of, test_of, value = (
        np.broadcast_to(sample[:, None], test.shape).ravel()[first],
        test.ravel()[first],
        similarity.ravel()[first],
    )
    order = np.lexsort((-value, test_of, sample_of))
    sample_of, test_of, value = sample_of[order], test_of[order], value[order]
    pair = sample_of * len(names) + test_of
    starts = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]])
    needed = np.minimum(np.bincount(sample), _AGREEING)[sample_of[starts]]
    enough = np.diff(np.r_[starts, len(pair)]) >= needed
    counted = (starts + needed - 1)[enough]
    nearest: dict[str, list[tuple[str, float]]] = {}
    for at in counted[np.argsort(-value[counted], kind="stable")].tolist():
        twins = nearest.setdefault(str(ids[sample_of[at]]), [])
        if len(twins) < _TWINS:
            twins.append((str(names[test_of[at]]), float(value[at])))
    return nearest


def _all_nearest(
    ids: Sequence[str], index: Any, whitening: Whitening, folder: Path
) -> dict[str, list[tuple[str, float]]]:
    """As `_nearest`, for all samples whose features lie in the folder."""
    nearest: dict[str, list[tuple[str, float]]] = {}
    for samples, features in feature_blocks(folder):
        nearest |= _nearest(samples, features, ids, whitening, index)
    return nearest
