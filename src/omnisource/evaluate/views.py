"""The views of the test protocol: which frames and crops of a sample a network is asked about (paper, section 4)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from omnisource.clips import dense_test, piece_frames, segment_test, stride_in
from omnisource.errors import UserError
from omnisource.infer import Request
from omnisource.recipe import Input, Test


def view_request(
    sample: Mapping[str, Any], facts: Mapping[str, Any], given: Input, views: Test, spatial: bool
) -> Request:
    """All views of one sample.

    Args:
        sample: a row of the samples table.
        facts: its row of the probe table.
        given: what the network sees in training; a 3D network's clips have as many frames, as far apart.
        views: the protocol: `clips` clips for a 3D network, one view of `clips` segments for a 2D one.
        spatial: whether the network is 2D.
    """
    length = None
    if sample["format"] == "image" or facts["kind"] == "image":
        clips, length = np.zeros((1, 1), np.int64), None if spatial else given.frames
    else:
        count = frame_count(sample, facts)
        if spatial:
            clips = segment_test(count, views.clips)[None]
        else:
            stride = stride_in(facts["fps"], given.stride, given.fps)
            clips = dense_test(count, given.frames, stride, views.clips)
    start_s = sample["start_s"] or 0.0
    return Request(sample["sample_id"], sample["uri"], clips, views.crops, start_s, sample["end_s"], length)


def frame_count(sample: Mapping[str, Any], facts: Mapping[str, Any]) -> int:
    """Frames of the sample: of its file, or of the piece of it that is labelled."""
    fps = facts["fps"] or 0.0
    total = facts["num_frames"] or round(float(facts["duration_s"] or 0.0) * fps)
    return piece_frames(sample["start_s"], sample["end_s"], fps, total)


def crop_size(given: Input, views: Test) -> int:
    """Side of a test crop in pixels.

    Raises:
        UserError: larger than the scaled frame's shorter side.
    """
    size = views.size or (given.short_side if views.crops == 3 else min(given.size, given.short_side))
    if size > given.short_side:
        raise UserError(f"test.size: a crop of {size} does not fit into frames whose short side is {given.short_side}")
    return size
