"""How far a training is, and the lines of its log that are made of that."""

import math
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from omnisource.train.loader import Replacement
from omnisource.train.pool import Pool

# Columns of the sums: loss, right answers, slots; loss of strong views, slots of which the network was sure; loss by
# the weights of the sources.
SUPERVISED, CONSISTENCY, WEIGHTED = slice(0, 3), slice(3, 5), 5


@dataclass
class Tally:
    """Sums since the last line of the log; they continue over a break."""

    sums: Tensor  # float64 (sources, columns)
    steps: int = 0
    loss: float = 0.0
    norm: float = 0.0  # of the gradients, but for steps that were skipped
    skipped: int = 0  # steps of fp16 whose gradients were not finite


@dataclass
class Progress:
    """What changes from step to step, beside the network."""

    step: int
    tally: Tally
    loss: float = math.nan  # of the last line of the log
    best: float | None = None
    seconds: float = 0.0  # since the last line, in this process
    waited: float = 0.0


def new_tally(pool: Pool) -> Tally:
    """Nothing counted yet."""
    return Tally(new_sums(pool))


def new_sums(pool: Pool) -> Tensor:
    """Zeros for every source and column."""
    return torch.zeros(len(pool.sources), WEIGHTED + 1, dtype=torch.float64)


def train_row(at: Progress, pool: Pool, epoch: float, lr: float, consistent: bool) -> dict[str, Any]:
    """The line of log.jsonl for the steps in the tally: the same for the same run, always.

    consistent: whether web units have a consistency loss, too.
    """
    tally = at.tally
    sources = dict[str, dict[str, Any]]()
    for name, role, sums in zip(pool.sources, pool.roles, tally.sums.tolist(), strict=True):
        loss, right, slots, strong, sure, _ = sums
        if slots:
            sources[name] = {"loss": loss / slots, "accuracy": right / slots, "slots": int(slots)}
            if consistent and role == "web":
                sources[name]["consistency"] = {"loss": strong / slots, "sure": sure / slots}
    taken = tally.steps - tally.skipped
    return {
        "kind": "train",
        "step": at.step,
        "epoch": epoch,
        "lr": lr,
        "loss": tally.loss / tally.steps,
        "gradient_norm": tally.norm / taken if taken else None,
        **({"skipped": tally.skipped} if tally.skipped else {}),
        "sources": sources,
    }


def speed_row(at: Progress, device: torch.device) -> dict[str, Any]:
    """The line of speed.jsonl for the same steps."""
    return {
        "step": at.step,
        "seconds": at.seconds,
        "clips_per_s": float(at.tally.sums[:, 2].sum()) / at.seconds,
        "waiting_share": at.waited / at.seconds,
        "memory_bytes": psutil.Process().memory_info().rss,
        "device_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
    }


def replaced_row(replacement: Replacement, pool: Pool) -> dict[str, Any]:
    """The line of log.jsonl about a unit that could not be read."""
    old, new = pool.unit(replacement.unit), pool.unit(replacement.by)
    return {
        "kind": "replaced",
        "step": replacement.step,
        "slot": replacement.slot,
        "source": old.source,
        "sample_id": old.sample_id,
        "by": new.sample_id,
        "reason": replacement.reason,
    }
