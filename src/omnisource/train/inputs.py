"""From a batch of pixels to what the network takes: augmented, mixed, labelled, on the device."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omnisource.clips import augment, mix, smooth, soft_labels
from omnisource.recipe import Training
from omnisource.train import keys
from omnisource.train.decode import FLIP
from omnisource.train.loader import Batch, Group
from omnisource.train.pool import Pool

_TINY = 1e-30


@dataclass(frozen=True)
class Inputs:
    """A rank's share of a global batch. Clips of one shape lie in one tensor."""

    clips: list[Tensor]  # float (n, C, T, H, W), or features (n, D) of a fixed trunk
    rows: list[Tensor]  # int (n,): which rows of the arrays below they are
    labels: Tensor  # float (N, classes), mixed and smoothed
    sureness: Tensor  # float (N,): how much each row's loss counts, 1 but for unsure pseudo-labels
    weight: Tensor  # float (N,): how much it counts beyond that, by its source (recipe: loss_weight)
    truth: Tensor  # int (N,): the class of each row itself
    source: Tensor  # int (N,): position in the pool's sources
    slot_keys: keys.U64  # (N,)


def make_inputs(batch: Batch, pool: Pool, training: Training, spatial: bool, device: torch.device) -> Inputs:
    """Does on the device what is left to do after decoding: flip, camera, normalise, mix.

    A still image is repeated over time for a 3D network. A 2D network sees it as one snippet, unless samples are
    mixed, which needs one shape for all.
    """
    mixes = training.mixup.kind != "off"
    length = training.input.frames if mixes or not spatial else None
    shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
    for group in batch.groups:
        found = _augmented(group, batch, training, length, device)
        shapes.setdefault(found.shape[1:], []).append((found, torch.from_numpy(group.rows)))
    clips = [torch.cat([clip for clip, _ in parts]) if len(parts) > 1 else parts[0][0] for parts in shapes.values()]
    rows = [torch.cat([row for _, row in parts]) for parts in shapes.values()]
    truth = torch.from_numpy(pool.label[batch.unit]).long().to(device)
    labels = _labels(batch, pool, truth)
    sureness = labels.amax(1) if training.confidence_weighted else torch.ones(len(labels), device=device)
    labels = smooth(labels, training.label_smoothing)
    source = torch.from_numpy(pool.source[batch.unit]).long().to(device)
    weight = torch.tensor([training.loss_weight.get(name, 1.0) for name in pool.sources], device=device)[source]
    if mixes:
        # One shape: put the rows in their order, and mix by position.
        whole = clips[0][torch.argsort(rows[0]).to(device)]
        place = {int(slot): row for row, slot in enumerate(batch.slot)}
        mine = batch.slot[: batch.own]
        partner = torch.tensor([place[int(batch.slots.partner[slot])] for slot in mine], device=device)
        share = torch.from_numpy(batch.slots.weight[mine]).float().to(device)
        # Rows that are only partners stay as they are.
        others = torch.arange(batch.own, len(batch.slot), device=device)
        partner = torch.cat([partner, others])
        share = torch.cat([share, torch.ones(len(others), device=device)])
        clips = [mix(whole, partner, share)[: batch.own]]
        # Each of two labels counts as much as it would alone: one that weighs nothing does not come in by a partner.
        counts = sureness * weight
        both, sureness = mix(counts, partner, share), mix(sureness, partner, share)
        labels = mix(labels * counts[:, None], partner, share) / both.clamp(min=_TINY)[:, None]
        weight = both / sureness.clamp(min=_TINY)
        rows = [torch.arange(batch.own)]
    own = slice(batch.own)
    rows, slot_keys = [row.to(device) for row in rows], batch.slots.key[batch.slot[own]]
    return Inputs(clips, rows, labels[own], sureness[own], weight[own], truth[own], source[own], slot_keys)


def _augmented(group: Group, batch: Batch, training: Training, length: int | None, device: torch.device) -> Tensor:
    given = training.input
    pixels = torch.from_numpy(group.pixels)
    if pixels.ndim == 2:  # features of a fixed trunk, augmented before it
        return pixels.to(device)
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    slot_keys = batch.slots.key[batch.slot[group.rows]]
    flip = torch.from_numpy(keys.uniform(keys.mix(FLIP, slot_keys)) < given.flip)
    return augment(
        pixels.to(device, non_blocking=True),
        mean=given.mean,
        std=given.std,
        flip=flip.to(device),
        camera=torch.from_numpy(group.camera).to(device) if group.camera is not None else None,
        length=length,
        size=given.size,
        flow=given.modality == "flow",
    )


def _labels(batch: Batch, pool: Pool, truth: Tensor) -> Tensor:
    labels = soft_labels(truth, len(pool.classes))
    if pool.soft:
        for row, number in enumerate(batch.unit):
            probs = pool.unit(int(number)).probs
            if probs is not None:
                labels[row] = torch.from_numpy(np.array(probs, np.float32)).to(labels.device)
    return labels
