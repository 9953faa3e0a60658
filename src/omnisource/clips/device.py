"""From what workers decoded to what a network sees, batched on the device: camera, flip, normalise."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Flow is stored in 8 bits with "no motion" at 128; these are the field's constants for it.
FLOW_MEAN = (128.0, 128.0)
FLOW_STD = (128.0, 128.0)


def augment(
    frames: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    flip: Tensor | None = None,
    camera: Tensor | None = None,
    length: int | None = None,
    size: int | None = None,
    flow: bool = False,
) -> Tensor:
    """Turns decoded frames into network input.

    Args:
        frames: uint8 (N, T, H, W, 3), or (N, T, H, W, 2 or 3) for flow: x and y displacement first.
        mean, std: per channel, in units of the 8-bit input (recipe: `input.mean`, `input.std`; ignored for flow).
        flip: bool (N,), which samples are mirrored left to right; the x displacement of flow changes its sign.
        camera: float (N, length, 3, 3), for frames with T = 1 (images; else ValueError): frame t of the clip shows at
            point p what the image shows at camera[t] p; both are homogeneous points with x and y in [-1, 1] from border
            to border (read_moving gives it). Each frame is warped once from the image; outside of it the image is
            reflected.
        length: frames of the result when `camera` is None and T = 1: the image stands still.
        size: side of the result when `camera` is given; default H.

    Returns:
        float32 (N, C, T, H, W), C = 2 for flow, else 3. Strides are those of channels_last_3d without a camera.
    """
    if flow:
        frames, mean, std = frames[..., :2], FLOW_MEAN, FLOW_STD
    if camera is not None:
        if frames.shape[1] != 1:
            raise ValueError(f"a camera moves over images, T = 1; these frames have T = {frames.shape[1]}")
        clip = _warp(frames[:, 0], _mirrored(camera, flip), size or frames.shape[2])
        centre, spread = (torch.tensor(v, device=clip.device).view(-1, 1, 1, 1) for v in (mean, std))
        return clip.sub_(centre).div_(spread)
    if flip is not None:
        given, frames = frames, frames.clone()
        for i in flip.nonzero()[:, 0].tolist():  # indexing by a mask takes four times as long
            frames[i] = given[i].flip(2)
            if flow:
                frames[i, ..., 0] = 255 - frames[i, ..., 0]
    clip = _normalised(frames, mean, std).permute(0, 4, 1, 2, 3)
    return clip.expand(-1, -1, length, -1, -1) if length and clip.shape[2] == 1 else clip


def _normalised(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(frames - mean) / std over the last axis, float32; by whole rows, as three channels fill no vector unit."""
    *outer, width, channels = frames.shape
    scale = torch.tensor([1 / s for s in std], device=frames.device).repeat(width)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=frames.device).repeat(width)
    rows = frames.reshape(*outer, width * channels).float()
    return rows.mul_(scale).add_(shift).view(*outer, width, channels)


def _mirrored(camera: Tensor, flip: Tensor | None) -> Tensor:
    """The camera of the mirrored clip: x changes its sign before the camera looks."""
    if flip is None:
        return camera
    signs = torch.ones(len(camera), 1, 1, 3, device=camera.device, dtype=camera.dtype)
    signs[flip, ..., 0] = -1
    return camera * signs


def _warp(images: Tensor, camera: Tensor, size: int) -> Tensor:
    """uint8 images (N, H, W, C) seen through `camera` (N, T, 3, 3): float (N, C, T, size, size)."""
    count, length = camera.shape[:2]
    axis = (torch.arange(size, device=images.device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, size * size, 3)
    seen = points @ camera.float().flatten(0, 1).transpose(1, 2)
    grid = (seen[..., :2] / seen[..., 2:]).view(count, length * size, size, 2)
    # The frames of a clip lie below one another in one tall picture, so the image isn't copied for each of them.
    clip = torch.nn.functional.grid_sample(
        images.permute(0, 3, 1, 2).float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return clip.view(count, -1, length, size, size)
