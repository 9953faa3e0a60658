"""Strong views: what may change in a clip, and what may not."""

import pytest
import torch

from omnisource.clips.strong import DRAWS, strong_view


@pytest.mark.parametrize("flow", [False, True])
def test_a_strong_view_is_the_clip_in_another_light_with_a_box_erased(flow: bool) -> None:
    clips = torch.randn(1, 2 if flow else 3, 4, 20, 30).expand(3, -1, -1, -1, -1)
    # Share of the side, top, left, contrast, brightness.
    draws = torch.tensor([[1.0, 0.5, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0, 0.5], [0.2, 0.999, 0.999, 0.0, 1.0]]).double()
    seen = strong_view(clips, draws, flow)
    assert torch.equal(clips[0], clips[1]), "the clips stay as they are"
    boxes = torch.zeros(3, 20, 30, dtype=torch.bool)
    boxes[0, 5:15, :15] = True  # half of each side: in the middle, at the left
    boxes[2, 18:, 27:] = True  # a tenth, at the end
    light = [(1.0, 0.0), (2.0, 0.0), (0.5, 0.8)] if not flow else [(1.0, 0.0)] * 3
    for view, clip, box, (factor, added) in zip(seen, clips, boxes, light, strict=True):
        assert not view[:, :, box].any()
        torch.testing.assert_close(view[:, :, ~box], clip[:, :, ~box] * factor + added)


def test_any_draw_leaves_three_quarters_of_a_clip() -> None:
    draws = torch.rand(200, DRAWS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = strong_view(torch.ones(200, 2, 1, 7, 9), draws, flow=True)
    shares = seen.mean((1, 2, 3, 4))
    assert shares.min() >= 0.68 and shares.max() == 1  # of 7 x 9 pixels a half of each side is 4 x 5
