"""Validation during training: one view a clip, top-1."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from omnisource.clips import augment
from omnisource.media import Failure, IsolatedPool, MediaError
from omnisource.networks import Network, fused
from omnisource.train.decode import F32, U8, Reading, Request, decode, decode_into
from omnisource.train.distributed import Ranks
from omnisource.train.pool import Pool

_BATCH = 16


def validate(network: Network, pool: Pool, reading: Reading, ranks: Ranks, workers: int) -> dict[str, float]:
    """Scores the middle clip (3D) or the middle frames of all segments (2D), centre crop.

    Returns top1, loss, and the number of samples; those that could not be read are counted as `unread` and left out.
    """
    given = reading.training.input
    mine = range(ranks.rank, len(pool), ranks.world)
    sums = torch.zeros(4, dtype=torch.float64, device=ranks.device)
    network.eval()
    try:
        with fused(network):
            for numbers, pixels, found in _batches(mine, pool, reading, workers):
                clips = augment(
                    torch.from_numpy(pixels).to(ranks.device),
                    mean=given.mean,
                    std=given.std,
                    length=None if reading.spatial else given.frames,
                    flow=given.modality == "flow",
                )
                read = torch.from_numpy(found).to(ranks.device)
                truth = torch.from_numpy(pool.label[numbers]).long().to(ranks.device)[read]
                with torch.no_grad():
                    logits = network(clips).float()[read]
                    loss = torch.nn.functional.cross_entropy(logits, truth, reduction="sum")
                sums += torch.stack([(logits.argmax(1) == truth).sum(), loss, read.sum(), (~read).sum()]).double()
    finally:
        network.train()
    right, loss_sum, count, unread = ranks.sum(sums).tolist()
    some = max(count, 1.0)
    return {"top1": right / some, "loss": loss_sum / some, "samples": int(count), "unread": int(unread)}


def _batches(
    numbers: range, pool: Pool, reading: Reading, workers: int
) -> Iterator[tuple[list[int], U8, npt.NDArray[np.bool_]]]:
    """Clips of one shape, up to `_BATCH` of them, and which could be read; the others are black.

    Who stands with whom does not depend on what can be read, so a broken file changes no bit of what is said of others.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, U8 | None]]] = {}
    for number, shape, pixels in _read(numbers, pool, reading, workers):
        group = waiting.setdefault(shape, [])
        group.append((number, pixels))
        if len(group) == _BATCH:
            yield _stacked(shape, group)
            group.clear()
    for shape, group in waiting.items():
        if group:
            yield _stacked(shape, group)


def _stacked(
    shape: tuple[int, ...], group: Sequence[tuple[int, U8 | None]]
) -> tuple[list[int], U8, npt.NDArray[np.bool_]]:
    clips = np.zeros((len(group), *shape), np.uint8)
    for row, (_, pixels) in enumerate(group):
        if pixels is not None:
            clips[row] = pixels
    return [number for number, _ in group], clips, np.array([pixels is not None for _, pixels in group])


def _read(
    numbers: range, pool: Pool, reading: Reading, workers: int
) -> Iterator[tuple[int, tuple[int, ...], U8 | None]]:
    requests = (reading.view(pool.unit(number)) for number in numbers)
    if workers == 0:
        for number, request in zip(numbers, requests, strict=True):
            try:
                yield number, request.shape, decode(request)[0]
            except MediaError:
                yield number, request.shape, None
        return
    with IsolatedPool(workers, reading.limits.timeout_s) as processes:
        found: Iterator[tuple[Request, tuple[U8 | None, F32 | None] | Failure]]
        found = processes.map(decode_into, requests, ordered=True)
        for number, (request, result) in zip(numbers, found, strict=True):
            yield number, request.shape, None if isinstance(result, Failure) else result[0]
