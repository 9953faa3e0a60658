"""Depthwise 3x3x3 convolutions that train: the sum of three depthwise 3x3 ones, one per tap along time.

Vendor libraries have good kernels for the 2D ones and poor ones for the 3D one, above all for its gradients. Clips are
channels last: (N, C, T, H, W) with C innermost in memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from omnisource.networks import onednn
from omnisource.networks.kernels import fold_frames, taps, unfold_frames, whole


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Depthwise 3x3x3 convolution with padding 1 and the same stride along every axis.

    x (N, C, T, H, W), weight (C, 1, 3, 3, 3), bias (C,) -> (N, C, ceil(T/s), ceil(H/s), ceil(W/s)).
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):  # backward runs outside autocast, so the casts are made here
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    y: Tensor = _Depthwise.apply(x, weight, bias, stride)  # type: ignore[no-untyped-call]
    return y


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return whole(_sum_of_taps(x, weight, bias, stride))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last_3d)
        want_x, want_weight, want_bias, _ = ctx.needs_input_grad
        dx = None
        if want_x and ctx.stride == 1:  # the same convolution, by the mirrored kernel
            dx, want_x = _sum_of_taps(dy, weight.flip(2, 3, 4), None, 1), False
        dweight = torch.zeros_like(weight) if want_weight else None
        for tap, read, write in taps(x.shape[2], ctx.stride):
            grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
                fold_frames(dy[:, :, write]),
                fold_frames(x[:, :, read]),
                weight[:, :, tap],
                None,
                [ctx.stride, ctx.stride],
                [1, 1],
                [1, 1],
                False,
                [0, 0],
                x.shape[1],
                [want_x, want_weight, False],
            )
            if want_x:  # a stride skips frames, and each tap reaches others
                dx = torch.zeros_like(x) if dx is None else dx
                dx[:, :, read] += unfold_frames(grad_x, write.stop - write.start)
            if dweight is not None:
                dweight[:, :, tap] = grad_weight
        return dx, dweight, dy.sum((0, 2, 3, 4)) if want_bias else None, None


def _sum_of_taps(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """The convolution; no gradient is asked for."""
    if onednn.usable(x, None):
        return onednn.depthwise(
            x, onednn.Kernel(weight, weight.new_zeros(len(weight)) if bias is None else bias), stride, None
        )
    y = x
    for tap, read, write in taps(x.shape[2], stride):
        kernel = weight[:, :, tap]
        shift = bias if tap == 1 else None
        part = F.conv2d(fold_frames(x[:, :, read]), kernel, shift, stride, 1, groups=x.shape[1])
        part = unfold_frames(part, write.stop - write.start)
        if tap == 1:
            y = part
        else:
            y[:, :, write] += part
    return y
