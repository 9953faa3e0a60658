"""Whole layers of evaluation on a CPU: convolution, norm, shortcut and activation in one pass over memory.

Layer by layer, PyTorch lets oneDNN convolve only and then walks through memory again for what follows. The operators
used here, which PyTorch's own compiler emits, hand it the rest as well. They know no gradients.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnisource.networks.kernels import fold_frames, plane, small_maps, taps, unfold_frames

_ACTIVATIONS: dict[type, tuple[str, list[float]]] = {
    type(None): ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
}


@dataclass(eq=False)
class Kernel:
    """The kernel (O, I/groups, kT, kH, kW) of a layer with its norm multiplied in, and the shift (O,) that stays.

    `keep`: nothing changes while this lives, so that the kernel is brought into oneDNN's order of memory once.
    """

    weight: Tensor
    bias: Tensor
    keep: bool = False
    _packed: dict[tuple[str, torch.dtype], Tensor] = field(default_factory=dict)
    _wider: dict[tuple[int, ...], "Kernel"] = field(default_factory=dict)

    def wider(self, zeros: tuple[int, ...]) -> "Kernel":
        """With zeros around the taps, as many as `torch.nn.functional.pad` takes."""
        if not any(zeros):
            return self
        kernel = self._wider.get(zeros) or Kernel(F.pad(self.weight, zeros), self.bias, self.keep)
        if self.keep:
            self._wider[zeros] = kernel
        return kernel

    def part(self, name: str, weight: Tensor, x: Tensor, stride: list[int], padding: list[int], groups: int) -> Tensor:
        """`weight`, a view of the kernel called `name`, as oneDNN wants it for inputs such as x."""
        if not self.keep:
            return weight.to(x.dtype)
        packed = self._packed.get((name, x.dtype))
        if packed is None:
            order = torch.ops.aten.mkldnn_reorder_conv2d_weight
            if weight.ndim == 5:
                order = torch.ops.aten.mkldnn_reorder_conv3d_weight
            ones = [1] * len(stride)
            packed = order(weight.to(x.dtype).to_mkldnn(), padding, stride, ones, groups, list(x.shape))
            self._packed[name, x.dtype] = packed
        return packed


def usable(x: Tensor, act: nn.Module | None) -> bool:
    """Whether `convolve` can stand for a layer: no gradient is asked for, and oneDNN knows the type and activation."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or type(act) not in _ACTIVATIONS:
        return False
    if not (torch._C._has_mkldnn and torch._C._get_mkldnn_enabled()):
        return False
    dtype = _dtype(x)
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def convolve(
    x: Tensor,
    kernel: Kernel,
    stride: tuple[int, int, int],
    padding: tuple[int, int, int],
    groups: int,
    shortcut: Tensor | None,
    act: nn.Module | None,
    overwrite: bool = True,
) -> Tensor:
    """act(convolution of x with the kernel + bias + shortcut); with `overwrite` the result takes the shortcut's memory.

    x (N, I, T, H, W), shortcut (N, O, T', H', W'); under autocast in bfloat16 both are cast to it.
    """
    dtype = _dtype(x)
    x = x.to(dtype, memory_format=torch.channels_last_3d)
    shortcut = None if shortcut is None else shortcut.to(dtype)
    weight = kernel.weight
    uniform = stride in ((1, 1, 1), (2, 2, 2)) and padding == (1, 1, 1)
    if uniform and weight.shape[1:] == (1, 3, 3, 3) and groups == x.shape[1] and shortcut is None:
        return depthwise(x, kernel, stride[0], act)
    folded = plane(weight.shape[2:], stride, padding)
    if folded == "frames" and not small_maps(x, weight, stride, padding):
        other = None if shortcut is None else fold_frames(shortcut)
        y = _layer(fold_frames(x), kernel, weight.squeeze(2), stride[1:], padding[1:], groups, other, act, overwrite)
        return unfold_frames(y, x.shape[2])
    if folded == "columns":
        other = None if shortcut is None else shortcut.flatten(3)
        y = _layer(
            x.flatten(3), kernel, weight.squeeze(4), (stride[0], 1), (padding[0], 0), groups, other, act, overwrite
        )
        return y.reshape(*y.shape[:3], *x.shape[3:])
    return _layer(x, kernel, weight, stride, padding, groups, shortcut, act, overwrite)


def _dtype(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _layer(
    x: Tensor,
    kernel: Kernel,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    groups: int,
    shortcut: Tensor | None,
    act: nn.Module | None,
    overwrite: bool,
) -> Tensor:
    """A layer in 2D or 3D, by the number of axes of x and weight."""
    steps, pads, ones = list(stride), list(padding), [1] * len(stride)
    weight = kernel.part("all", weight, x, steps, pads, groups)
    name, scalars = _ACTIVATIONS[type(act)]
    if shortcut is None:
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, kernel.bias.to(x.dtype), pads, steps, ones, groups, name, scalars, ""
        )
        return y
    fused = name if name == "relu" else None
    settings: Any = (kernel.bias.to(x.dtype), pads, steps, ones, groups, "add", 1.0, fused, [], "")
    if overwrite:
        y = torch.ops.mkldnn._convolution_pointwise_.binary(shortcut, x, weight, *settings)
    else:
        y = torch.ops.mkldnn._convolution_pointwise.binary(x, shortcut, weight, *settings)
    return y if act is None or fused else act(y)


def depthwise(x: Tensor, kernel: Kernel, stride: int, act: nn.Module | None) -> Tensor:
    """A depthwise 3x3x3 layer: three depthwise 3x3 ones, each added to what the one before it wrote."""
    channels = x.shape[1]
    steps, ones = [stride, stride], [1, 1]
    y = x
    for tap, read, write in taps(x.shape[2], stride):
        source = x[:, :, read]
        weight = kernel.part(f"tap {tap}", kernel.weight[:, :, tap], fold_frames(source[:1]), steps, ones, channels)
        if tap == 1:
            bias = kernel.bias.to(x.dtype)
            part = torch.ops.mkldnn._convolution_pointwise(
                fold_frames(source), weight, bias, ones, steps, ones, channels, "none", [], ""
            )
            y = unfold_frames(part, write.stop)
            continue
        for i in range(len(x)):  # clip by clip, since only there the frames that it adds to are a view
            torch.ops.mkldnn._convolution_pointwise_.binary(
                fold_frames(y[i : i + 1, :, write]),
                fold_frames(source[i : i + 1]),
                weight,
                None,
                ones,
                steps,
                ones,
                channels,
                "add",
                1.0,
                None,
                [],
                "",
            )
    return y if act is None else act(y)
