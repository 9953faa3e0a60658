"""The strong view of a clip in consistency training (Sohn et al., FixMatch, NeurIPS 2020), made of the weak one."""

import torch
from torch import Tensor

DRAWS = 5  # numbers that a strong view takes
_SIDE = 0.5  # most of a side that the box takes (DeVries and Taylor, Cutout, 2017)
_CONTRAST = 2.0  # greatest factor; the least is its inverse
_BRIGHTNESS = 0.8  # greatest shift, in units of the input's deviation


def strong_view(clips: Tensor, draws: Tensor, flow: bool = False) -> Tensor:
    """Changes contrast and brightness, not of flow, and erases a box; both alike in all frames of a clip.

    Args:
        clips: float (N, C, T, H, W), normalised as `augment` does: 0 is the mean.
        draws: float64 (N, DRAWS) in [0, 1), on the CPU; nothing else is random.

    Returns:
        (N, C, T, H, W), a copy.
    """
    share, top, left, contrast, shift = draws.unbind(1)
    rows, columns = (
        _within(length, _SIDE * share, place) for length, place in ((clips.shape[3], top), (clips.shape[4], left))
    )
    if not flow:
        factor, added = _CONTRAST ** (2 * contrast - 1), _BRIGHTNESS * (2 * shift - 1)
        factor, added = (each.to(clips.device, clips.dtype).view(-1, 1, 1, 1, 1) for each in (factor, added))
        clips = clips * factor + added
    box = (rows[:, :, None] & columns[:, None, :]).to(clips.device)
    return clips.masked_fill(box[:, None, None], 0.0)


def _within(length: int, share: Tensor, place: Tensor) -> Tensor:
    """Bool (N, length): a piece of `share` of the length, somewhere inside of it as `place` in [0, 1) says."""
    size = (share * length).round()
    first = (place * (length - size + 1)).floor()
    at = torch.arange(length)
    return (at >= first[:, None]) & (at < (first + size)[:, None])
