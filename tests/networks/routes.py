"""Convolutions that take every route, and what tests compare them by: values and all gradients, in float64."""

import torch
from torch import Tensor

from omnisource.networks.kernels import Triple

# Kernel, stride, groups; for 6 channels.
ROUTES: list[tuple[Triple, Triple, int]] = [
    ((1, 1, 1), (1, 1, 1), 1),
    ((1, 1, 1), (2, 2, 2), 1),
    ((1, 3, 3), (1, 2, 2), 1),
    ((1, 5, 5), (1, 2, 2), 6),
    ((3, 1, 1), (1, 1, 1), 1),
    ((3, 1, 1), (2, 1, 1), 1),
    ((3, 3, 3), (1, 1, 1), 1),
    ((3, 3, 3), (1, 1, 1), 6),
    ((3, 3, 3), (2, 2, 2), 6),
    ((5, 7, 7), (2, 2, 2), 1),
]


def clip(n: int, c: int, t: int, h: int, w: int) -> Tensor:
    return (
        torch.randn(n, c, t, h, w, dtype=torch.double).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    )


def weights(*shape: int) -> tuple[Tensor, Tensor]:
    return (
        torch.randn(shape, dtype=torch.double, requires_grad=True),
        torch.randn(shape[0], dtype=torch.double, requires_grad=True),
    )


def same_gradients(
    ours: Tensor,
    theirs: Tensor,
    inputs: tuple[Tensor, ...],
    our_own: tuple[Tensor, ...] = (),
    their_own: tuple[Tensor, ...] = (),
) -> None:
    """Compares values and the gradients of what both share (inputs) and of what each has of its own."""
    torch.testing.assert_close(ours, theirs)
    towards = torch.randn_like(theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs + our_own, towards), torch.autograd.grad(theirs, inputs + their_own, towards)
    )
