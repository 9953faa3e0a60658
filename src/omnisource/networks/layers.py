"""Convolution with its norm, and pooling, over clips (N, C, T, H, W).

Most kernels of these networks are 1xkxk or kx1x1. With channels last in memory such a convolution is a 2D one
over a view of the same memory: frames become part of the batch, or height and width become one axis. Results are
those of `torch.nn.functional.conv3d`, to rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnisource.networks import expand, kernels, onednn, winograd
from omnisource.networks.depthwise import depthwise
from omnisource.networks.kernels import Triple, fold_frames, plane, unfold_frames

_CACHED = 4 * 64 * 112 * 112  # values that a stem writes at once on a CPU (benchmarks/networks.py)


def free_form() -> bool:
    """Whether to compute by faster routes: tracers and exporters are shown the vendor's operators, never ours."""
    return not (torch.compiler.is_compiling() or torch._C._is_tracing())


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple, groups: int) -> Tensor:
    """A 3D convolution by the cheapest equal route; x (N, I, T, H, W), weight (O, I/groups, kT, kH, kW)."""
    folded = plane(weight.shape[2:], stride, padding)
    ours = free_form()
    if ours and kernels.point(x, weight, stride, padding):
        # One matrix product over all pixels; for few pictures and one thread PyTorch would take a slow kernel.
        x = kernels.every_other(x, stride)
        return F.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
    if folded == "frames" and not (ours and kernels.small_maps(x, weight, stride, padding)):
        if ours and winograd.spatial_pays(x, weight, stride, padding):
            return winograd.spatial(x, weight, bias)
        y = F.conv2d(fold_frames(x), weight.squeeze(2), bias, stride[1:], padding[1:], groups=groups)
        return unfold_frames(y, x.shape[2])
    if folded == "columns" and groups == 1:
        if ours and winograd.temporal_pays(x, weight, stride, padding):
            return winograd.temporal(x, weight, bias)
        # (N, I, T, H*W): the kernel walks along T only, every pixel is a column of its own.
        y = F.conv2d(x.flatten(3), weight.squeeze(4), bias, (stride[0], 1), (padding[0], 0))
        return y.reshape(*y.shape[:3], *x.shape[3:])
    uniform = stride in ((1, 1, 1), (2, 2, 2)) and padding == (1, 1, 1)
    if ours and uniform and weight.shape[1:] == (1, 3, 3, 3) and groups == x.shape[1]:
        return depthwise(x, weight, bias, stride[0])
    return F.conv3d(x, weight, bias, stride, padding, groups=groups)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm and, unless `act` is None, an activation.

    In training the norm uses the batch's statistics. Where it is frozen, or in evaluation inside `networks.fused`, it
    is an affine map, and is multiplied into the kernel: one pass over memory less, and gradients still reach kernel,
    scale and shift. On a CPU, where no gradient is asked for, the whole layer is one operator. In evaluation elsewhere,
    and with `plain` set, the layer is torch's own Conv3d and BatchNorm3d, one after the other, and rounds as they do.

    Padding keeps the size for a stride of one (odd kernels); `same=True` pads as TensorFlow does: as much as the
    stride needs, the odd pixel on the far side.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        groups: int = 1,
        act: nn.Module | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
        same: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.groups, self.same, self.plain = stride, groups, same, False
        self.padding: Triple = (0, 0, 0) if same else (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, self.padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm3d(out_channels, eps=eps, momentum=momentum)
        self.act = act
        self.fused: onednn.Kernel | None = None
        """Kernel and shift of `fuse`, while nothing changes the weights (networks.fused)."""

    def fuse(self, keep: bool = False) -> onednn.Kernel:
        """The kernel with the norm of evaluation multiplied into it, and the shift that stays."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return onednn.Kernel(self.conv.weight * scale.view(-1, 1, 1, 1, 1), norm.bias - norm.running_mean * scale, keep)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(N, I, T, H, W) -> (N, O, T', H', W'). A `shortcut` of the output's shape is added before the activation;
        where no gradient is asked for, the result may take its memory."""
        y: Tensor
        if self.plain or (free_form() and not self.training and self.fused is None):
            x = pad_same(x, self.conv.weight.shape[2:], self.stride) if self.same else x
            # Every other order of memory has kernels that round otherwise, which depth amplifies. (What `contiguous`
            # returns may have it for kernels of one tap or one channel.)
            order = torch.contiguous_format
            x, weight = x.to(memory_format=order), self.conv.weight.to(memory_format=order)
            y = self.norm(F.conv3d(x, weight, None, self.stride, self.padding, groups=self.groups))
        elif self.norm.training:
            if free_form() and expand.pays(x, self.conv, self.norm):
                relu = type(self.act) is nn.ReLU
                y = expand.expand(kernels.every_other(x, self.stride), self.conv.weight, self.norm, shortcut, relu)
                return y if relu or self.act is None else self.act(y)
            x, weight, padding = self._padded(x, self.conv.weight)
            y = self.norm(convolve(x, weight, None, self.stride, padding, self.groups))
        else:
            kernel = self.fused if self.fused and not self.training else self.fuse()
            if free_form() and onednn.usable(x, self.act):
                zeros, padding = self._wider(x) if self.same else ((), self.padding)
                return onednn.convolve(x, kernel.wider(zeros), self.stride, padding, self.groups, shortcut, self.act)
            x, weight, padding = self._padded(x, kernel.weight)
            y = convolve(x, weight, kernel.bias, self.stride, padding, self.groups)
            y = kernels.own(y) if free_form() else y
        if shortcut is not None:
            y += shortcut
        if self.act is not None:
            y = self.act(y)
        return y

    def _padded(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Triple]:
        """Input, kernel and padding of the convolution, once the input or the kernel was padded where `same` asks."""
        padding = self.padding
        # PyTorch leaves parts of a 3D kernel's gradient unset (NaN, now and then) where padding is all that they meet.
        safe = weight.shape[2] == 1 or not torch.is_grad_enabled()
        if self.same and safe and free_form() and x.device.type == "cpu":
            # Copying the input into a padded one takes longer than convolving it.
            zeros, padding = self._wider(x)
            weight = F.pad(weight, zeros) if any(zeros) else weight
        elif self.same:
            x = pad_same(x, weight.shape[2:], self.stride)
        return x, weight, padding

    def _wider(self, x: Tensor) -> tuple[tuple[int, ...], Triple]:
        """Zeros before the taps (as for `F.pad`) of a kernel that pads x, alike on both sides, as `same` asks."""
        pads = same_pads(x.shape[2:], self.conv.weight.shape[2:], self.stride)
        zeros = tuple(part for near, far in reversed(pads) for part in (far - near, 0))
        return zeros, (pads[0][1], pads[1][1], pads[2][1])


def same_pads(sizes: torch.Size, kernel: torch.Size, stride: Triple) -> list[tuple[int, int]]:
    """Zeros before and after each axis so that a convolution's output has ceil(size / stride) positions; the second is
    the first, or one more."""
    needs = [max((-(-size // s) - 1) * s + k - size, 0) for size, k, s in zip(sizes, kernel, stride, strict=True)]
    return [(need // 2, need - need // 2) for need in needs]


def pad_same(x: Tensor, kernel: torch.Size, stride: Triple) -> Tensor:
    """Pads (N, C, T, H, W) with the zeros of `same_pads`."""
    pads = [part for pair in reversed(same_pads(x.shape[2:], kernel, stride)) for part in pair]
    if not any(pads):
        return x
    padded = F.pad(x, pads)
    # Exporters lay out what is padded anew, so that a view of it (folded frames) would no longer fit.
    return padded.contiguous() if torch.compiler.is_exporting() else padded


def max_pool(x: Tensor, kernel: Triple, stride: Triple, padding: Triple) -> Tensor:
    """`torch.nn.functional.max_pool3d`; a pool that is 1 along time runs in 2D, where it is faster."""
    if kernel[0] == 1 and padding[0] == 0:
        x = x[:, :, :: stride[0]]
        return unfold_frames(F.max_pool2d(fold_frames(x), kernel[1:], stride[1:], padding[1:]), x.shape[2])
    return F.max_pool3d(x, kernel, stride, padding)


def pooled(layer: ConvNorm, x: Tensor, stride_t: int = 1) -> Tensor:
    """A stem: the layer, then a max pool 1x3x3 of stride (stride_t, 2, 2).

    Inside `networks.fused` a CPU takes a few frames at a time, so that its caches still hold what is pooled.
    """

    def pool(y: Tensor) -> Tensor:
        return max_pool(y, (1, 3, 3), (stride_t, 2, 2), (0, 1, 1))

    kernel, ours = layer.fused, free_form() and not layer.plain and onednn.usable(x, layer.act)
    if kernel is None or layer.training or not ours:
        return pool(layer(x))
    taps, step, pad = layer.conv.kernel_size[0], layer.stride[0], layer.padding[0]
    x = F.pad(x, (0, 0, 0, 0, pad, pad)) if pad else x
    frames = (x.shape[2] - taps) // step + 1
    each = _CACHED // max(1, len(x) * layer.conv.out_channels * (x.shape[3] // 2) * (x.shape[4] // 2))
    each = max(1, each // stride_t) * stride_t
    parts = [x[:, :, i * step : (min(i + each, frames) - 1) * step + taps] for i in range(0, frames, each)]
    padding = (0, *layer.padding[1:])
    return torch.cat(
        [pool(onednn.convolve(y, kernel, layer.stride, padding, layer.groups, None, layer.act)) for y in parts], 2
    )
