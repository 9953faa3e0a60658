"""What every network is: a trunk over clips, pooled features, dropout and one linear layer."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omnisource.errors import UserError
from omnisource.networks.kernels import fold_frames, unfold_frames
from omnisource.networks.layers import ConvNorm, free_form

Consensus = Literal["mean", "mean-std", "mean-std-slope"]
_PARTS = {"mean": 1, "mean-std": 2, "mean-std-slope": 3}
_LEAST_VARIANCE = 1e-5
_CACHED = 8 * 256 * 256  # values that enter a block of a 2D network at once on a CPU (benchmarks/curation.py)


class Network(nn.Module):
    """A recogniser of clips.

    A subclass builds its modules, calls `finish` and defines `trunk`. `create` sets `name` and `options`, so
    that a checkpoint can say how to build the network again.
    """

    name: str = ""
    options: dict[str, Any]
    spatial: bool = False
    """True for a 2D network: its T are snippets, seen one by one, and their features are averaged."""
    min_frames: int = 1
    min_size: int = 32
    """The shortest clip (frames) and the smallest side (pixels) that the strides allow."""

    def __init__(self, num_classes: int, in_channels: int, dropout: float) -> None:
        super().__init__()
        if num_classes < 1 or in_channels < 1 or not 0 <= dropout < 1:
            raise UserError(
                f"a network needs num_classes >= 1, in_channels >= 1 and 0 <= dropout < 1, "
                f"not {num_classes}, {in_channels}, {dropout}"
            )
        self.num_classes, self.in_channels = num_classes, in_channels
        self.options = {}
        self.recompute = False
        self.norm_frozen = False
        self.plain = False
        self.consensus: Consensus = "mean"
        self.dropout = nn.Dropout(dropout)
        self.head: nn.Linear
        self.usual_change: Tensor

    @property
    def feature_dim(self) -> int:
        """Width of what the classifier sees: D, the width of `features`, times the parts of the consensus."""
        return self.head.in_features

    @property
    def consensus_parts(self) -> int:
        """How many equally wide parts lie side by side in what the classifier sees: mean, spread, slope."""
        return _PARTS[self.consensus]

    def finish(self, feature_dim: int, consensus: "Consensus" = "mean") -> None:
        """Adds the classifier and draws the first weights: He et al. for kernels, N(0, 0.01) for the
        classifier."""
        if consensus not in get_args(Consensus):
            raise UserError(f"consensus must be one of {', '.join(get_args(Consensus))}, not {consensus!r}")
        self.consensus = consensus
        if consensus != "mean":
            # Spread and slope of the training clips: what a single snippet, which shows no change, is taken to have.
            self.register_buffer("usual_change", torch.zeros(feature_dim * (_PARTS[consensus] - 1)))
        self.head = nn.Linear(feature_dim * _PARTS[consensus], self.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # see layers.py

    def trunk(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, D, T', H', W')."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        """Trunk output -> features: mean over space, and over time unless the network is spatial."""
        return x.mean((3, 4)).transpose(1, 2) if self.spatial else x.mean((2, 3, 4))

    def features(self, x: Tensor) -> Tensor:
        """float (N, C, T, H, W) -> pooled trunk output: (N, D), or (N, T, D) when the network is spatial.

        Raises UserError when the clip has the wrong number of axes or channels, or is too short or too small.
        """
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            raise UserError(f"{self.name} takes clips (N, {self.in_channels}, T, H, W), got {tuple(x.shape)}")
        if x.shape[2] < self.min_frames or min(x.shape[3:]) < self.min_size:
            raise UserError(
                f"{self.name} takes clips of at least {self.min_frames} frames and {self.min_size} pixels a "
                f"side, got {x.shape[2]} frames of {x.shape[4]} x {x.shape[3]}"
            )
        if self.spatial and free_form() and len(x) and (x.shape[2] == 1 or not torch.is_grad_enabled()):
            # All frames as the snippets of one clip: with T = 1 the layout in memory is ambiguous, and PyTorch then
            # takes slower kernels (1.7 times on a CPU); and `run` may cut where it likes.
            count, frames = len(x), x.shape[2]
            return self.pool(self.trunk(unfold_frames(fold_frames(x), count * frames))).view(count, frames, -1)
        return self.pool(self.trunk(x))

    def forward(self, x: Tensor) -> Tensor:
        """float (N, C, T, H, W) -> logits (N, classes). A spatial network averages over its snippets."""
        logits: Tensor = self.head(self.dropout(self.agree(self.features(x))))
        return logits

    def agree(self, features: Tensor, consensus: "Consensus | None" = None) -> Tensor:
        """`features` -> (N, feature_dim), what the classifier sees: of a spatial network the consensus of the snippets.

        `mean` is TSN's. The others are ours: `mean-std` adds how much each feature changes from snippet to snippet, so
        what moves is in there without any temporal kernel; `mean-std-slope` also which way it changes (least squares
        over the snippets), which tells sitting down from standing up. A single snippet tells nothing about change and
        gets `usual_change`: that of the training clips where the trunk was fixed, else none. `consensus`: another than
        the network's own.
        """
        if not self.spatial:
            return features
        chosen, mean = consensus or self.consensus, features.mean(1)
        if chosen == "mean":
            return mean
        parts = [(features.var(1, correction=0) + _LEAST_VARIANCE).sqrt()]  # the root of zero has no gradient
        ones = features.new_ones(features.shape[1])
        if chosen == "mean-std-slope":
            times = 2 * (ones.cumsum(0) - 1) / (ones.sum() - 1).clamp(min=1) - 1  # from -1 to 1
            parts.append((features * times[:, None]).mean(1))
        change = torch.cat(parts, 1)
        if chosen == self.consensus:
            # Chosen by a tensor, so that an exported network takes one snippet or several.
            change = torch.where(ones.sum() == 1, self.usual_change.expand_as(change).to(change.dtype), change)
        return torch.cat([mean, change], 1)

    def train(self, mode: bool = True) -> Self:
        """As in torch, but frozen norms stay in evaluation mode."""
        super().train(mode)
        if self.norm_frozen:
            for norm in norms(self):
                norm.eval()
        return self

    def run(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        """Runs blocks in order. With `recompute` set, training keeps only the blocks' inputs and computes
        the rest again in the backward pass: less memory for one more forward pass (R101, CSN).

        Outside training, where no gradient is asked for, a CPU runs a 2D network's blocks over as many snippets at once
        as its caches hold: few large ones at first, later many small ones, which use every weight that was read. (Norms
        in training want the statistics of all of them.)"""
        alone = (self.norm_frozen or not self.training) and not torch.is_grad_enabled()
        if alone and self.spatial and not self.plain and x.device.type == "cpu" and free_form():
            each = max(1, _CACHED // (x.shape[1] * x.shape[3] * x.shape[4]))
            if x.shape[2] > each:
                blocks = list(blocks)
                return torch.cat([self.run(blocks, part) for part in torch.split(x, each, 2)], 2)
        for block in blocks:
            if self.recompute and torch.is_grad_enabled():
                # The second pass over the same batch must not count twice in the statistics.
                def contexts(block: nn.Module = block) -> tuple[Any, Any]:
                    return nullcontext(), running_statistics_kept(block)

                x = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
            else:
                x = block(x)
        return x


def norms(module: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    """The batch norms in a module (synchronised ones too)."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            yield child


def freeze_norm(network: Network) -> None:
    """Fixes statistics, scale and shift of every batch norm (recipe: `norm: frozen`), also through
    `train()`."""
    network.norm_frozen = True
    for norm in norms(network):
        norm.eval().requires_grad_(False)


def freeze_trunk(network: Network) -> None:
    """Fixes all but the classifier, batch norms as by `freeze_norm` (recipe: `trunk_lr_scale: 0`)."""
    freeze_norm(network)
    network.requires_grad_(False)
    network.head.requires_grad_(True)


def use_plain_form(network: Network, plain: bool = True) -> None:
    """Makes a network compute by torch's own Conv3d and BatchNorm3d in the default memory format in training, too, and
    in `fused`; or undoes that.

    The plain form is slower and the same function: what the fast form is tested against, and speed is measured against.
    """
    for module in network.modules():
        if isinstance(module, ConvNorm | Network):
            module.plain = plain
    memory_format = torch.contiguous_format if plain else torch.channels_last_3d
    network.to(memory_format=memory_format)  # type: ignore[call-overload]


@contextmanager
def fused(network: nn.Module) -> Iterator[None]:
    """Inside of it evaluation takes the fast form, as scoring, testing and validation do: norms are multiplied into the
    kernels, and these are brought into the order of memory that the CPU's library wants, once.

    The results are the same to rounding. Weights, statistics and device must not change meanwhile.
    """
    layers = [module for module in network.modules() if isinstance(module, ConvNorm)]
    with torch.no_grad():
        for layer in layers:
            layer.fused = layer.fuse(keep=True)
    try:
        yield
    finally:
        for layer in layers:
            layer.fused = None


@contextmanager
def running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """A forward pass in training mode inside of it leaves the running statistics of all norms alone."""
    momenta = [(norm, norm.momentum) for norm in norms(block)]
    for norm, _ in momenta:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
