"""Convolutions by Winograd's method, forward and backward, on a CPU: fewer products, all of them products of matrices.

F(4,3) computes four outputs of a kernel of three taps with six products in place of twelve, and of a 3x3 kernel sixteen
outputs with 36 in place of 144: y = A^T ((G w) * (B^T x)) along each axis (Winograd, 1980; Lavin and Gray, 2016). It
trades rounding for products (some 1e-5 of the largest output in float32), so it is not for half precision.

Clips are channels last: (N, C, T, H, W) with C innermost in memory.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from omnisource.networks.kernels import Triple, fold_frames, whole

_CHANNELS, _TILES = 128, 128  # at least so many: what is transformed is small beside what is multiplied
_USED = 0.75  # at least this part of the tiles' outputs lies within the map

# B^T, G and A^T.
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


def temporal(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3x1x1 convolution with padding 1 along time.

    x (N, C, T, H, W) with T a multiple of 4, weight (O, C, 3, 1, 1), bias (O,) -> (N, O, T, H, W).
    """
    y: Tensor = _Convolution.apply(x, weight, bias, _Time)  # type: ignore[no-untyped-call]
    return y


def spatial(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """1x3x3 convolution with padding 0,1,1.

    x (N, C, T, H, W), weight (O, C, 1, 3, 3), bias (O,) -> (N, O, T, H, W).
    """
    y: Tensor = _Convolution.apply(x, weight, bias, _Maps)  # type: ignore[no-untyped-call]
    return y


def temporal_pays(x: Tensor, weight: Tensor, stride: Triple, padding: Triple) -> bool:
    """Whether `temporal` can stand for a convolution of x (N, C, T, H, W), and is faster than the vendor's."""
    same = weight.shape[1:] == (x.shape[1], 3, 1, 1) and (stride, padding) == ((1, 1, 1), (1, 0, 0))
    return same and x.shape[2] % 4 == 0 and _exact(x, weight)


def spatial_pays(x: Tensor, weight: Tensor, stride: Triple, padding: Triple) -> bool:
    """Whether `spatial` can stand for a convolution of x (N, C, T, H, W), and is faster than the vendor's."""
    n, c, t, h, w = x.shape
    rows, columns = _grid(x.shape)
    tiles = rows * columns
    same = weight.shape[1:] == (c, 1, 3, 3) and (stride, padding) == ((1, 1, 1), (0, 1, 1))
    large = min(weight.shape[:2]) >= _CHANNELS and n * t * tiles >= _TILES and h * w >= _USED * 16 * tiles
    return same and large and _exact(x, weight)


def _exact(x: Tensor, weight: Tensor) -> bool:
    exact = x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)
    return exact and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


class _Axes(Protocol):
    """The transforms along the axes of a kernel: J products stand for every tile."""

    @staticmethod
    def kernel(like: Tensor) -> Tensor:
        """(J, taps)"""

    @staticmethod
    def into(x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (J, tiles, C)"""

    @staticmethod
    def into_adjoint(mixed: Tensor, shape: torch.Size) -> Tensor:
        """Gradient of `into`, for x of this shape."""

    @staticmethod
    def out(products: Tensor, shape: torch.Size) -> Tensor:
        """(J, tiles, O) -> (N, T, H, W, O), where x has this shape (N, C, T, H, W)."""

    @staticmethod
    def out_adjoint(dy: Tensor) -> Tensor:
        """Gradient of `out`: (N, O, T, H, W) -> (J, tiles, O)."""


class _Convolution(torch.autograd.Function):
    """What is small beside the products is computed again in the backward pass, not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, axes: type[_Axes]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.axes = axes
        products = torch.bmm(axes.into(x), _mix(axes.kernel(x), weight).transpose(1, 2))
        y = axes.out(products, x.shape)
        if bias is not None:
            y += bias
        return whole(y.permute(0, 4, 1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        kernel = ctx.axes.kernel(x)
        dproducts = ctx.axes.out_adjoint(dy)
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = ctx.axes.into_adjoint(torch.bmm(dproducts, _mix(kernel, weight)), x.shape)
        if ctx.needs_input_grad[1]:
            dkernel = torch.bmm(dproducts.transpose(1, 2), ctx.axes.into(x))
            dweight = torch.mm(dkernel.flatten(1).t(), kernel).view_as(weight)
        return dx, dweight, dy.sum((0, 2, 3, 4)) if ctx.needs_input_grad[2] else None, None


def _mix(kernel: Tensor, weight: Tensor) -> Tensor:
    """kernel (J, taps), weight (O, C, and its taps) -> (J, O, C)."""
    outputs, inputs = weight.shape[:2]
    taps = weight.flatten(2).permute(2, 0, 1).reshape(kernel.shape[1], -1)  # a view of what is contiguous
    return torch.mm(kernel, taps).view(-1, outputs, inputs)


class _Time:
    """Along time. Tile i reads frames 4i-1 .. 4i+4 and writes frames 4i .. 4i+3; all tiles of a clip are one matrix."""

    @staticmethod
    def kernel(like: Tensor) -> Tensor:
        return _matrix(_KERNEL, like)

    @staticmethod
    def into(x: Tensor) -> Tensor:
        return _over_time(_input_over_clips(x.shape[2], x), _frames_first(x)).view(6, -1, x.shape[1])

    @staticmethod
    def into_adjoint(mixed: Tensor, shape: torch.Size) -> Tensor:
        matrix = _input_over_clips(shape[2], mixed).t().contiguous()
        dx = _from_time(matrix, mixed.view(matrix.shape[1], shape[0], -1))
        return dx.view(shape[0], *shape[2:], shape[1]).permute(0, 4, 1, 2, 3)

    @staticmethod
    def out(products: Tensor, shape: torch.Size) -> Tensor:
        matrix = _output_over_clips(shape[2], products)
        y = _from_time(matrix, products.view(matrix.shape[1], shape[0], -1))
        return y.view(shape[0], *shape[2:], products.shape[2])

    @staticmethod
    def out_adjoint(dy: Tensor) -> Tensor:
        dy = dy.contiguous(memory_format=torch.channels_last_3d)
        matrix = _output_over_clips(dy.shape[2], dy).t().contiguous()
        return _over_time(matrix, _frames_first(dy)).view(6, -1, dy.shape[1])


def _input_over_clips(frames: int, like: Tensor) -> Tensor:
    """(6*tiles, T): frames outside the clip are zero, so their columns are left out."""
    tiles = frames // 4
    matrix = torch.zeros(6, tiles, frames + 2, dtype=like.dtype)
    for i in range(tiles):
        matrix[:, i, 4 * i : 4 * i + 6] = _matrix(_INPUT, like)
    return matrix[:, :, 1:-1].reshape(6 * tiles, frames)


def _output_over_clips(frames: int, like: Tensor) -> Tensor:
    """(T, 6*tiles)"""
    tiles = frames // 4
    matrix = torch.zeros(tiles, 4, 6, tiles, dtype=like.dtype)
    for i in range(tiles):
        matrix[i, :, :, i] = _matrix(_OUTPUT, like)
    return matrix.reshape(frames, 6 * tiles)


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


def _frames_first(x: Tensor) -> Tensor:
    """(N, C, T, H, W), channels last in memory -> (N, T, H*W*C), a view."""
    return x.permute(0, 2, 3, 4, 1).reshape(x.shape[0], x.shape[2], -1)


class _Maps:
    """Along height and width at once: the matrices of one axis times those of the other, over tiles of 4 x 4 pixels."""

    @staticmethod
    def kernel(like: Tensor) -> Tensor:
        return _both(_KERNEL, like)

    @staticmethod
    def into(x: Tensor) -> Tensor:
        return torch.mm(_both(_INPUT, x), _tiles(x, 6)).view(36, -1, x.shape[1])

    @staticmethod
    def into_adjoint(mixed: Tensor, shape: torch.Size) -> Tensor:
        return _joined(torch.mm(_both(_INPUT, mixed).t(), mixed.view(36, -1)), shape)

    @staticmethod
    def out(products: Tensor, shape: torch.Size) -> Tensor:
        n, _, t, h, w = shape
        rows, columns = _grid(shape)
        y = torch.mm(_both(_OUTPUT, products), products.view(36, -1))
        y = y.view(4, 4, n * t, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
        return y.reshape(n, t, 4 * rows, 4 * columns, -1)[:, :, :h, :w].contiguous()

    @staticmethod
    def out_adjoint(dy: Tensor) -> Tensor:
        return torch.mm(_both(_OUTPUT, dy).t(), _tiles(dy, 4)).view(36, -1, dy.shape[1])


def _grid(shape: torch.Size) -> tuple[int, int]:
    """Tiles of 4 x 4 pixels from top to bottom and from left to right of maps (N, C, T, H, W)."""
    return -(-shape[3] // 4), -(-shape[4] // 4)


def _tiles(x: Tensor, size: int) -> Tensor:
    """(N, C, T, H, W) -> (size*size, N*T*rows*columns*C): the tiles of 4 x 4 pixels, of size 6 with one pixel around
    each; zero outside the map."""
    frames = fold_frames(x).permute(0, 2, 3, 1)
    near, (h, w) = (size - 4) // 2, x.shape[3:]
    padded = F.pad(frames, (0, 0, near, -w % 4 + near, near, -h % 4 + near))
    return padded.unfold(1, size, 4).unfold(2, size, 4).permute(4, 5, 0, 1, 2, 3).reshape(size * size, -1)


def _joined(tiles: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of `_tiles` of size 6, whose tiles share pixels, for x of this shape (N, C, T, H, W)."""
    n, c, t, h, w = shape
    rows, columns = _grid(shape)
    parts = tiles.view(6, 6, n * t, rows, columns, c).permute(2, 3, 0, 4, 1, 5)  # frame, row, pixel, column, pixel
    # A tile's last two pixels a side are the next one's first two.
    dx = tiles.new_zeros(n * t, rows + 1, 4, columns + 1, 4, c)
    dx[:, :-1, :, :-1] = parts[:, :, :4, :, :4]
    dx[:, 1:, :2, :-1] += parts[:, :, 4:, :, :4]
    dx[:, :-1, :, 1:, :2] += parts[:, :, :4, :, 4:]
    dx[:, 1:, :2, 1:, :2] += parts[:, :, 4:, :, 4:]
    dx = dx.view(n, t, 4 * rows + 4, 4 * columns + 4, c)[:, :, 1 : h + 1, 1 : w + 1].contiguous()
    return dx.permute(0, 4, 1, 2, 3)


def _matrix(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype)


def _both(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """(J, K) -> (J*J, K*K): the matrix along both axes."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix).to(like.dtype)
