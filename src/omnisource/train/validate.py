"""Validation during training: one view a clip, top-1."""

from collections.abc import Iterator

import numpy as np
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
            for numbers, pixels in _batches(mine, pool, reading, workers, sums):
                clips = augment(
                    torch.from_numpy(pixels).to(ranks.device),
                    mean=given.mean,
                    std=given.std,
                    length=None if reading.spatial else given.frames,
                    flow=given.modality == "flow",
                )
                truth = torch.from_numpy(pool.label[numbers]).long().to(ranks.device)
                with torch.no_grad():
                    logits = network(clips).float()
                    loss = torch.nn.functional.cross_entropy(logits, truth, reduction="sum")
                sums[:3] += torch.stack([(logits.argmax(1) == truth).sum(), loss, torch.tensor(len(numbers))]).double()
    finally:
        network.train()
    right, loss_sum, count, unread = ranks.sum(sums).tolist()
    count = max(count, 1.0)
    return {"top1": right / count, "loss": loss_sum / count, "samples": int(count), "unread": int(unread)}


def _batches(
    numbers: range, pool: Pool, reading: Reading, workers: int, sums: torch.Tensor
) -> Iterator[tuple[list[int], U8]]:
    """Clips of one shape, up to `_BATCH` of them."""
    waiting: dict[tuple[int, ...], list[tuple[int, U8]]] = {}
    for number, pixels in _read(numbers, pool, reading, workers):
        if pixels is None:
            sums[3] += 1
            continue
        group = waiting.setdefault(pixels.shape, [])
        group.append((number, pixels))
        if len(group) == _BATCH:
            yield [number for number, _ in group], np.stack([pixels for _, pixels in group])
            group.clear()
    for group in waiting.values():
        if group:
            yield [number for number, _ in group], np.stack([pixels for _, pixels in group])


def _read(numbers: range, pool: Pool, reading: Reading, workers: int) -> Iterator[tuple[int, U8 | None]]:
    requests = (reading.view(pool.unit(number)) for number in numbers)
    if workers == 0:
        for number, request in zip(numbers, requests, strict=True):
            try:
                yield number, decode(request)[0]
            except MediaError:
                yield number, None
        return
    with IsolatedPool(workers, reading.limits.timeout_s) as processes:
        found: Iterator[tuple[Request, tuple[U8 | None, F32 | None] | Failure]]
        found = processes.map(decode_into, requests, ordered=True)
        for number, (_, result) in zip(numbers, found, strict=True):
            yield number, None if isinstance(result, Failure) else result[0]
