"""How close web samples come to what the target is tested on: whitened trunk features of frames (paper, 3.1)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from omnisource.curate.embed import F16, Trunk, embed, feature_blocks, frames_of
from omnisource.curate.engine import LOCAL, Engine
from omnisource.curate.pieces import Piece
from omnisource.curate.samples import Sample
from omnisource.curate.whiten import F32, Whitening, fit_whitening
from omnisource.infer import Request
from omnisource.recipe import Recipe
from omnisource.tables import Journal

_FIT_ROWS = 50_000  # frames of the web from which the whitening is estimated
_THRESHOLD_FRAMES = 200  # of the test set, whose crops give the threshold
_CROPS = 5


@dataclass(frozen=True)
class Closeness:
    """What `compare` found."""

    closest: dict[str, tuple[str, float]]
    """Web sample -> the test sample whose frame is most similar to one of its own, and that similarity."""
    threshold: float
    measured: dict[str, Any]


def compare(
    recipe: Recipe,
    held_out: Sequence[Sample],
    web: pa.Table,
    journal: Journal,
    folder: Path,
    engine: Engine = LOCAL,
) -> Closeness:
    """Finds for every web sample the most similar frame of the test set, as it is and mirrored.

    The threshold, unless the recipe sets it, is what the paper takes: the mean similarity between different crops of
    the same frame of the target. Similarities are cosines of whitened features; the search is exact.

    Args:
        held_out: the target's val and test samples.
        web: the samples to look at: a table of the fields of Sample.
        journal, folder: where features of the web are kept until the end, so that a killed stage resumes.
    """
    settings = recipe.dedupe
    trunk = Trunk(recipe, engine.workers)
    requests = [request for sample in held_out for request in frames_of(sample, settings)]
    ids, features = _look(trunk, [replace(r, flip=flip) for flip in (False, True) for r in requests])
    embed(recipe, web, journal, engine, "frames of the web")
    upright = features[: len(features) // 2]
    whitening = fit_whitening(np.concatenate([upright, *_drawn(folder, recipe.seed)]))
    measured: dict[str, Any] = {"dimensions": whitening.matrix.shape[1], "test_frames": len(upright)}
    threshold = settings.threshold
    if threshold == "auto":
        similarities = _between_crops(trunk, requests, whitening)
        threshold = float(similarities.mean())
        measured["crop_pairs"] = len(similarities)
    return Closeness(_closest(ids, whitening(features), whitening, folder), float(threshold), measured)


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


def _drawn(folder: Path, seed: int) -> Iterator[F16]:
    """Random frames of the web, so many that the whitening is well estimated."""
    count = sum(len(ids) for ids, _ in feature_blocks(folder))
    rng = np.random.default_rng(seed)
    for _, features in feature_blocks(folder):
        yield features[rng.random(len(features)) < _FIT_ROWS / max(count, 1)]


def _between_crops(trunk: Trunk, requests: Sequence[Request], whitening: Whitening) -> F32:
    """Similarities of different crops of one frame, for some frames of the test set."""
    step = max(1, len(requests) // _THRESHOLD_FRAMES)
    crops = [replace(request, clips=request.clips[:1], crops=_CROPS) for request in requests[::step]]
    _, features = _look(trunk, crops)
    views = whitening(features).reshape(-1, _CROPS, whitening.matrix.shape[1])
    first, second = np.triu_indices(_CROPS, 1)
    similar: F32 = np.einsum("npd,npd->np", views[:, first], views[:, second]).ravel()
    return similar


def _closest(ids: Sequence[str], frames: F32, whitening: Whitening, folder: Path) -> dict[str, tuple[str, float]]:
    index: Any = faiss.IndexFlatIP(frames.shape[1])
    if hasattr(faiss, "get_num_gpus") and faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(frames)
    closest: dict[str, tuple[str, float]] = {}
    for samples, features in feature_blocks(folder):
        similarity, place = index.search(whitening(features), 1)
        for sample, value, at in zip(samples, similarity[:, 0].tolist(), place[:, 0].tolist(), strict=True):
            if sample not in closest or value > closest[sample][1]:
                closest[sample] = (ids[at], value)
    return closest
