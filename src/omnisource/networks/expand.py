"""A 1x1x1 convolution to many channels together with the batch norm of training, the shortcut and the ReLU.

Done one after the other, the norm walks through the many channels four times forward and five times backward. Yet a
convolution z = W x is linear, so what a norm wants of z follows from x, which has few channels:

    mean(z) = W mean(x),    var(z) = w Cov(x) w^T  for each row w of W,

and its gradients follow from g^T x, which W's own gradient needs anyway. So z is never formed: the norm is multiplied
into W, the product gives the output at once, and backward two products with matrices as small as W take the norm's
place. The results are those of the separate layers, to rounding; less has to be kept for the backward pass, too.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from omnisource.networks import onednn
from omnisource.networks.kernels import whole

_FEWER = 2  # the input has at most this part of the output's channels: the covariance costs that part of the product
_MORE_POINTS = 16  # per input channel, so that products of matrices as small as the weights cost little
_PIECE = 2**18  # numbers of x that are centered at a time: they stay in a core's cache
_PIECE_POINTS = 1024  # but at least so many points, for the product's sake


def pays(x: Tensor, conv: nn.Conv3d, norm: nn.BatchNorm3d) -> bool:
    """Whether `expand` can stand for the convolution of x (N, I, T, H, W) and its norm in training, and is cheaper."""
    outputs, inputs = conv.weight.shape[:2]
    points = x.numel() // inputs // math.prod(conv.stride)
    return (
        x.device.type == "cpu"
        and x.dtype == conv.weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and type(norm) is nn.BatchNorm3d
        and conv.kernel_size == (1, 1, 1)
        and conv.groups == 1
        and inputs * _FEWER <= outputs
        and points >= inputs * _MORE_POINTS
    )


def expand(x: Tensor, weight: Tensor, norm: nn.BatchNorm3d, shortcut: Tensor | None, relu: bool) -> Tensor:
    """relu(norm(convolution of x with weight) + shortcut) in training; the norm's running statistics follow.

    x (N, I, T, H, W), channels last in memory, weight (O, I, 1, 1, 1), shortcut (N, O, T, H, W) -> (N, O, T, H, W).
    """
    y: Tensor
    y, mean, var = _Expand.apply(x, weight, norm.weight, norm.bias, shortcut, norm.eps, relu)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        points = x.numel() // x.shape[1]
        norm.running_mean.lerp_(mean, share)
        norm.running_var.lerp_(var * (points / (points - 1)), share)
    return y


class _Expand(torch.autograd.Function):
    """What is as small as the weights is computed in double precision."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        shift: Tensor,
        shortcut: Tensor | None,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, wide = _rows(x), weight.flatten(1).double()
        center, cov = _moments(rows)
        mean, var = wide @ center, ((wide @ cov) * wide).sum(1).clamp(min=0)
        root = torch.rsqrt(var + eps)
        gain = scale * root
        kernel = (gain[:, None] * wide).to(x.dtype).view_as(weight)
        y = _convolve(x, kernel, (shift - gain * mean).to(x.dtype), shortcut, relu)
        ctx.save_for_backward(x, weight, scale, center, cov, mean, root, y if relu else None)
        mean, var = mean.to(x.dtype), var.to(x.dtype)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, center, cov, mean, root, y = ctx.saved_tensors
        if y is not None:
            dy = torch.ops.aten.threshold_backward(dy, y, 0)
        rows, grads = _rows(x), _rows(dy)
        wide, gain, count = weight.flatten(1).double(), scale * root, len(rows)
        total = grads.sum(0).double()
        along = torch.mm(grads.t(), rows).double() - torch.outer(total, center)  # g^T (x - mean(x))
        dscale = root * (along * wide).sum(1)  # g times the normed z, summed
        # The gradient of z is gain * (g - mean(g) - normed z * mean(g * normed z)), so a sum of g, z and a constant.
        pull = -gain * root * dscale / count
        dweight = gain[:, None] * along + (pull * count)[:, None] * (wide @ cov)
        dx = None
        if ctx.needs_input_grad[0]:
            still = -(gain * total / count + pull * mean) @ wide
            dx = torch.addmm(still.to(x.dtype), rows, (wide.t() @ (pull[:, None] * wide)).to(x.dtype))
            dx.addmm_(grads, (gain[:, None] * wide).to(x.dtype))
            dx = _clips(dx, x.shape)
        return (
            dx,
            dweight.to(weight.dtype).view_as(weight),
            dscale.to(scale.dtype),
            total.to(scale.dtype),
            dy if ctx.needs_input_grad[4] else None,
            None,
            None,
        )


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor, shortcut: Tensor | None, relu: bool) -> Tensor:
    """relu(x convolved with the kernel + bias + shortcut), in one pass over memory where oneDNN is there."""
    act = nn.ReLU(inplace=True) if relu else None
    # oneDNN's ReLU makes zeros of NaN, and nobody would see that a training has diverged. One NaN in x is in all of the
    # kernel, by the mean and the variance.
    if onednn.usable(x, act) and kernel.isfinite().all() and bias.isfinite().all():
        fused = onednn.Kernel(kernel, bias)
        return whole(onednn.convolve(x, fused, (1, 1, 1), (0, 0, 0), 1, shortcut, act, overwrite=False))
    y = _clips(torch.addmm(bias, _rows(x), kernel.flatten(1).t()), x.shape)
    if shortcut is not None:
        y += shortcut
    return whole(y if act is None else act(y))


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (I,) and covariance (I, I) of rows (M, I), for what follows in double precision.

    The rows are centered before they are multiplied: the difference of E[x x^T] and the means' product would be all
    rounding where channels lie far from zero and hardly vary.
    """
    center, count = rows.mean(0), rows.shape[1]
    products = rows.new_zeros(count, count)
    for part in torch.split(rows, max(_PIECE // count, _PIECE_POINTS)):
        part = part - center
        products.addmm_(part.t(), part)
    return center.double(), products.double() / len(rows)


def _rows(x: Tensor) -> Tensor:
    """(N, C, T, H, W) -> (N*T*H*W, C), a view where the channels are last in memory."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def _clips(rows: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `_rows` for clips (N, any, T, H, W)."""
    return rows.view(shape[0], *shape[2:], -1).movedim(-1, 1)
