"""What a step minimises, and its gradients: the summed losses of all sources (paper, Eq. 1), and consistency.

    L = ( sum over B_T of CE  +  sum over sources s of w_s sum over B_s of CE ) / |B_T|

With mixup each of a clip's two labels has the weight of its own source.
Dividing by the target's batch size keeps the learning rate's meaning: without web sources L is the mean cross-entropy.
Consistency (ours, off by default) adds to it: consistency.py.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from omnisource.errors import UserError
from omnisource.networks import Network, running_statistics_kept
from omnisource.recipe import Training
from omnisource.train.consistency import consistency_losses, strong_views
from omnisource.train.distributed import Parallel, Ranks
from omnisource.train.inputs import Inputs
from omnisource.train.plan import Plan
from omnisource.train.precision import autocast
from omnisource.train.tally import CONSISTENCY, SUPERVISED, WEIGHTED, new_sums


@dataclass(frozen=True)
class _Pass:
    """A forward and a backward pass: of clips as they are, of their strong views, or for company's sake."""

    clips: Tensor
    rows: Tensor
    kind: Literal["weak", "strong", "idle"] = "weak"


class Objective:
    """L of a training on its network, in this process."""

    def __init__(self, training: Training, plan: Plan, network: Network, parallel: Parallel, ranks: Ranks) -> None:
        self.training, self.pool, self.network = training, plan.pool, network
        self.parallel, self.ranks = parallel, ranks
        module = parallel.module
        if training.trunk_views:
            module = nn.Sequential(network.dropout, network.head)
        self._forward = cast(nn.Module, torch.compile(module)) if training.compile else module
        self._web = torch.tensor([role == "web" for role in self.pool.roles], device=ranks.device)
        self._target_size, self._web_size = plan.target_size, sum(plan.sizes) - plan.target_size
        self._consistency = training.consistency if self._web_size else None

    def value(self, sums: Tensor) -> float:
        """L of a step from the sums of all processes, float64 (sources, columns) as in a tally."""
        loss = float(sums[:, WEIGHTED].sum()) / self._target_size
        if self._consistency is not None:
            loss += self._consistency.weight * float(sums[:, CONSISTENCY][:, 0].sum()) / self._web_size
        return loss

    def backward(self, inputs: Inputs, scaler: torch.amp.GradScaler) -> Tensor:
        """Adds the gradients of L: one pass for all clips of a shape, or one a source. Returns the sums of a tally."""
        sums = new_sums(self.pool).to(self.ranks.device)
        said = torch.zeros_like(inputs.labels)  # logits of the clips as they are
        passes = self._passes(inputs)
        for number, one in enumerate(passes):
            clips, rows = one.clips, one.rows
            if one.kind == "strong":
                web = self._is_web(inputs, rows)
                rows = rows[web]
                flow = self.training.input.modality == "flow"
                clips = strong_views(clips[web], inputs.slot_keys[rows.cpu().numpy()], flow)
            # Running statistics are of clips as they are: strong views must not count in them.
            foreign = one.kind != "weak" or (self.training.norm_per_source and self._is_web(inputs, rows[:1]).all())
            with self.parallel.synced(number == len(passes) - 1):
                with (
                    autocast(self.ranks.device, self.training.precision),
                    running_statistics_kept(self.network) if foreign else nullcontext(),
                ):
                    logits = self._logits(clips)
                logits = logits.float()
                if one.kind == "weak":
                    loss = self._supervised(logits, inputs, rows, sums)
                    said[rows] = logits.detach()
                elif one.kind == "strong":
                    loss = self._consistent(logits, said[rows], inputs, rows, sums)
                else:
                    loss = logits.sum() * 0
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return sums

    def _logits(self, clips: Tensor) -> Tensor:
        try:
            logits: Tensor = self._forward(clips)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # torch's words, of a norm
                raise
            raise UserError(
                f"network.norm: of one clip of {clips.shape[3]} pixels alone one value per channel is left, too few "
                "for a norm's statistics; raise `batch` or `input.size`, or set network.norm to frozen"
            ) from error
        return logits

    def _passes(self, inputs: Inputs) -> list[_Pass]:
        """Those of clips as they are; then, where labels come from these, those of strong views."""
        weak = [_Pass(clips, rows) for clips, rows in self._parts(inputs)]
        idle = replace(weak[-1], kind="idle")
        found = self._in_company(weak, idle)
        if self._consistency is not None:
            strong = [replace(one, kind="strong") for one in weak if self._is_web(inputs, one.rows).any()]
            found += self._in_company(strong, idle)
        return found

    def _in_company(self, passes: Sequence[_Pass], idle: _Pass) -> list[_Pass]:
        """Passes and, where those of all processes meet, idle ones up to as many as the process with most has.

        A share of a batch may lack a source, or a shape; without passes in their place the others would wait for ever.
        """
        synced = self.training.network.norm == "sync"
        if self.ranks.world == 1 or not (self.parallel.sharded or synced):
            return list(passes)
        least, most = self.ranks.range(len(passes))
        if synced and least < most:
            raise UserError(
                f"network.norm: sync needs clips of every source and shape in each of {self.ranks.world} processes, "
                "but the batch has too few; raise `batch`, start fewer processes, or set network.norm to train"
            )
        return [*passes, *[idle] * (most - len(passes))]

    def _parts(self, inputs: Inputs) -> Iterator[tuple[Tensor, Tensor]]:
        """Clips and their rows, one forward pass each."""
        for clips, rows in zip(inputs.clips, inputs.rows, strict=True):
            if not (self.training.accumulate or self.training.norm_per_source):
                yield clips, rows
                continue
            for number in range(len(self.pool.sources)):
                mine = (inputs.source[rows] == number).nonzero()[:, 0]
                if len(mine):
                    yield clips[mine], rows[mine]

    def _is_web(self, inputs: Inputs, rows: Tensor) -> Tensor:
        return self._web[inputs.source[rows]]

    def _supervised(self, logits: Tensor, inputs: Inputs, rows: Tensor, sums: Tensor) -> Tensor:
        """This process's part of Eq. 1; adds to `sums`."""
        each = -(inputs.labels[rows] * logits.log_softmax(1)).sum(1) * inputs.sureness[rows]
        source, weight = inputs.source[rows], inputs.weight[rows]
        with torch.no_grad():
            right = logits.argmax(1) == inputs.truth[rows]
            found = torch.stack([each.double(), right.double(), torch.ones_like(each).double()], 1)
            sums[:, SUPERVISED].index_add_(0, source, found)
            sums[:, WEIGHTED].index_add_(0, source, each.double() * weight.double())
        # DDP averages over processes, Eq. 1 sums.
        return (each * weight).sum() * (self.ranks.world / self._target_size)

    def _consistent(self, strong: Tensor, weak: Tensor, inputs: Inputs, rows: Tensor, sums: Tensor) -> Tensor:
        """This process's part of the loss of strong views; adds to `sums`."""
        assert self._consistency is not None
        each, sure = consistency_losses(weak, strong, self._consistency.confidence)
        found = torch.stack([each.detach().double(), sure.double()], 1)
        sums[:, CONSISTENCY].index_add_(0, inputs.source[rows], found)
        return each.sum() * (self._consistency.weight * self.ranks.world / self._web_size)
