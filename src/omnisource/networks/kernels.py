"""Convolutions by faster routes than the vendor's, forward and backward.

- A 3x1x1 convolution over a multiple of four frames is computed by Winograd's method, F(4,3): four outputs with six
  products in place of twelve (Winograd, 1980; Lavin and Gray, 2016). All six are matrix products.
- A 1x1x1 convolution that strides over frames is a matrix product over the points that it reads.

Clips are channels last: (N, C, T, H, W) with C innermost in memory.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Triple = tuple[int, int, int]

# Values in the kernel of a convolution and pixels of the map it writes (docs/networks.md).
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


# Winograd's F(4,3) in the matrices of Lavin and Gray: y = A^T ((G w) * (B^T x)).
_INPUT = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_KERNEL = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
_OUTPUT = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)


def _transforms(frames: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(6*tiles, T), (6, 3) and (T, 6*tiles): input, kernel and output transforms over whole clips.

    Tile i reads frames 4i-1 .. 4i+4 (those outside the clip are zero, so their columns are left out) and writes
    frames 4i .. 4i+3.
    """
    tiles = frames // 4
    into = torch.zeros(6, tiles, frames + 2, dtype=like.dtype)
    out = torch.zeros(tiles, 4, 6, tiles, dtype=like.dtype)
    for i in range(tiles):
        into[:, i, 4 * i : 4 * i + 6] = torch.tensor(_INPUT, dtype=like.dtype)
        out[i, :, :, i] = torch.tensor(_OUTPUT, dtype=like.dtype)
    kernel = torch.tensor(_KERNEL, dtype=like.dtype)
    return into[:, :, 1:-1].reshape(6 * tiles, frames), kernel, out.reshape(frames, 6 * tiles)


def _over_time(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix (J, T), x (N, T, M) -> (J, N, M): mixes frames, keeping the mixed axis outermost."""
    y = x.new_empty(matrix.shape[0], x.shape[0], x.shape[2])
    for i, clip in enumerate(x):
        torch.mm(matrix, clip, out=y[:, i])
    return y


def _from_time(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix (T, J), x (J, N, M) -> (N, T, M)."""
    y = x.new_empty(x.shape[1], matrix.shape[0], x.shape[2])
    for i, clip in enumerate(y):
        torch.mm(matrix, x[:, i], out=clip)
    return y


class _Temporal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        n, c, t, h, w = x.shape
        into, kernel, out = _transforms(t, x)
        products = torch.bmm(
            _over_time(into, _frames_first(x)).view(6, -1, c), _mix_kernel(kernel, weight).transpose(1, 2)
        )
        y = _from_time(out, products.view(out.shape[1], n, -1))
        y = y.view(n, t, h, w, -1)
        if bias is not None:
            y += bias
        return whole(y.permute(0, 4, 1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        n, c, t, h, w = x.shape
        into, kernel, out = _transforms(t, x)
        dy = dy.contiguous(memory_format=torch.channels_last_3d)
        dproducts = _over_time(out.t().contiguous(), _frames_first(dy)).view(6, -1, dy.shape[1])
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dmixed = torch.bmm(dproducts, _mix_kernel(kernel, weight))
            dx = _from_time(into.t().contiguous(), dmixed.view(into.shape[0], n, -1))
            dx = dx.view(n, t, h, w, c).permute(0, 4, 1, 2, 3)
        if ctx.needs_input_grad[1]:
            mixed = _over_time(into, _frames_first(x)).view(6, -1, c)
            dkernel = torch.bmm(dproducts.transpose(1, 2), mixed)
            dweight = torch.tensordot(kernel.t(), dkernel, 1).permute(1, 2, 0)[..., None, None]
        return dx, dweight, dy.sum((0, 2, 3, 4)) if ctx.needs_input_grad[2] else None


def _frames_first(x: Tensor) -> Tensor:
    """(N, C, T, H, W), channels last in memory -> (N, T, H*W*C), a view."""
    return x.permute(0, 2, 3, 4, 1).reshape(x.shape[0], x.shape[2], -1)


def _mix_kernel(kernel: Tensor, weight: Tensor) -> Tensor:
    """(6, 3), (O, C, 3, 1, 1) -> (6, O, C)."""
    mixed: Tensor = torch.tensordot(kernel, weight.flatten(2).permute(2, 0, 1), 1)
    return mixed


def temporal(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3x1x1 convolution with padding 1 along time, on the CPU.

    x (N, C, T, H, W) with T a multiple of 4, weight (O, C, 3, 1, 1), bias (O,) -> (N, O, T, H, W).
    """
    y: Tensor = _Temporal.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y
