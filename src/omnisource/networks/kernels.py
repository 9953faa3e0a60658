"""Which kernels are 2D ones over the same memory, and what their faster routes share (`layers.convolve` takes them).

Clips are channels last: (N, C, T, H, W) with C innermost in memory.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Triple = tuple[int, int, int]

# Values in the kernel of a convolution, and pixels of the map it writes (docs/networks.md).
_LARGE_KERNEL, _SMALL_MAP = 2**19, 16


def fold_frames(x: Tensor) -> Tensor:
    """(N, C, T, H, W) -> (N*T, C, H, W), a view when the channels are last in memory."""
    n, c, t, h, w = x.shape
    return x.transpose(1, 2).reshape(n * t, c, h, w)


def unfold_frames(x: Tensor, frames: int) -> Tensor:
    """(N*T, C, H, W) -> (N, C, T, H, W), the inverse of `fold_frames`."""
    _, c, h, w = x.shape
    return x.reshape(-1, frames, c, h, w).transpose(1, 2)


def plane(kernel: Sequence[int], stride: Triple, padding: Triple) -> Literal["frames", "columns"] | None:
    """How a 3D convolution (kernel kT, kH, kW) is a 2D one over a view of the same memory, if it is: frames become part
    of the batch, or all pixels of a frame one row, so that every pixel is a column through time."""
    if kernel[0] == 1 and stride[0] == 1 and padding[0] == 0:
        return "frames"
    if kernel[1] == kernel[2] == 1 and stride[1:] == (1, 1) and padding[1:] == (0, 0):
        return "columns"
    return None


def small_maps(x: Tensor, weight: Tensor, stride: Triple, padding: Triple) -> bool:
    """Whether a CPU convolves faster over all frames of x (N, I, T, H, W) at once than frame by frame: a kernel that a
    core's cache does not hold, weight (O, I, 1, kH, kW), would be read anew for the few pixels of every frame.

    No map of one pixel a side: PyTorch leaves parts of a 3D kernel's gradient unset where they meet padding alone.
    """
    grouped = weight.shape[1] != x.shape[1]
    if x.device.type != "cpu" or grouped or max(weight.shape[3:]) == 1 or weight.numel() < _LARGE_KERNEL:
        return False
    height, width = ((x.shape[i] + 2 * padding[i - 2] - weight.shape[i]) // stride[i - 2] + 1 for i in (3, 4))
    return min(height, width) > 1 and height * width <= _SMALL_MAP


def point(x: Tensor, weight: Tensor, stride: Triple, padding: Triple) -> bool:
    """Whether a CPU computes a convolution of x (N, I, T, H, W) as one matrix product over the points that it reads."""
    if x.device.type != "cpu" or weight.shape[1:] != (x.shape[1], 1, 1, 1) or any(padding):
        return False
    # Every other pixel of a map: the vendor's own way is slow where the kernel is large.
    return stride == (1, 1, 1) or stride[0] > 1 or weight.numel() >= _LARGE_KERNEL


def taps(frames: int, stride: int) -> list[tuple[int, slice, slice]]:
    """For each of three taps along time: tap, the input frames that it reads, the output frames it adds to."""
    outputs = (frames - 1) // stride + 1
    taps = []
    for tap in (1, 0, 2):  # the middle one first: it reaches every output
        first = 1 if tap == 0 else 0
        last = min(outputs, (frames - tap) // stride + 1)  # one past the last output that this tap reaches
        if last > first:
            start = first * stride + tap - 1
            taps.append((tap, slice(start, start + (last - first - 1) * stride + 1, stride), slice(first, last)))
    return taps


def whole(view: Tensor) -> Tensor:
    """The same memory as a tensor of its own: of a view that one of these functions returns, autograd would let nobody
    (an activation after a frozen norm) change anything in place."""
    owner = view.new_empty(0)
    return owner.set_(view.untyped_storage(), view.storage_offset(), view.shape, view.stride())


class _Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, view: Tensor) -> Tensor:
        return whole(view)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy


def own(y: Tensor) -> Tensor:
    """The same memory, not as a view, of the output of an operation that needs its output no more (a convolution).

    What changes a view in place costs autograd a copy of the whole gradient (CopySlices), for each change another.
    """
    if not (y._is_view() and y.requires_grad):
        return y
    owned: Tensor = _Own.apply(y)  # type: ignore[no-untyped-call]
    return owned


class _EveryOther(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: Triple) -> Tensor:
        ctx.shape, ctx.stride = x.shape, stride
        return x[:, :, :: stride[0], :: stride[1], :: stride[2]].contiguous(memory_format=torch.channels_last_3d)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        # torch.zeros takes no order of memory.
        dx = torch.empty(ctx.shape, dtype=dy.dtype, device=dy.device, memory_format=torch.channels_last_3d).zero_()
        dx[:, :, :: ctx.stride[0], :: ctx.stride[1], :: ctx.stride[2]] = dy
        return dx, None


def every_other(x: Tensor, stride: Triple) -> Tensor:
    """What a 1x1x1 kernel of this stride sees of x (N, C, T, H, W), channels last."""
    if stride == (1, 1, 1):
        return x
    y: Tensor = _EveryOther.apply(x, stride)  # type: ignore[no-untyped-call]
    return y
