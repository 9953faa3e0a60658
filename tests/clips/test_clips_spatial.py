"""Crop boxes: equal to the reference's in testing, inside and of the right size in training."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.clips import Box, random_resized_crop, rng, view_boxes
from omnisource.media import scaled_size

sides = st.integers(1, 3000)
COUNTS = {"center": 1, "three": 3, "ten": 10}


def test_equal_to_the_reference_in_every_row(shared: Path) -> None:
    rows = json.loads((shared / "parity" / "views.json").read_text())["crops"]
    assert len(rows) == 32
    for row in rows:
        kind, size = row["crop"].split("_")
        height, width = row["resized"]
        assert scaled_size(row["original"][1], row["original"][0], 256) == (width, height)
        ours = [
            [box.right - 1, box.top, box.left, box.bottom - 1]
            if box.mirrored
            else [box.left, box.top, box.right - 1, box.bottom - 1]
            for box in view_boxes(width, height, int(size), COUNTS[kind])
        ]
        assert ours == row["boxes"], row


@given(sides, sides, st.integers(1, 400), st.sampled_from([1, 3, 5, 10]))
def test_views_are_squares_inside(width: int, height: int, size: int, crops: int) -> None:
    boxes = view_boxes(width, height, size, crops)
    assert len(boxes) == crops
    for box in boxes:
        assert box.left >= 0 and box.top >= 0 and box.right <= width and box.bottom <= height
        assert box.width == box.height == min(size, width, height)


@given(sides, sides, st.floats(0.01, 1), st.integers(0, 2**64 - 1))
def test_random_crops_are_inside_and_of_the_asked_area(width: int, height: int, min_area: float, key: int) -> None:
    box = random_resized_crop(width, height, min_area, rng(key))
    assert 0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height
    square = box.width == box.height == min(width, height)
    # Rounding a side to whole pixels changes the area by up to half a row and half a column.
    slack = (box.width + box.height + 1) / 2
    assert square or box.width * box.height >= min_area * width * height - slack


def test_random_crops_cover_frame_area_and_aspect_evenly() -> None:
    boxes = [random_resized_crop(340, 256, 0.08, rng(key)) for key in range(3000)]
    hits = np.zeros((256, 340))
    for box in boxes:
        hits[box.top : box.bottom, box.left : box.right] += 1
    assert np.allclose(hits, hits[::-1, ::-1], atol=0.06 * len(boxes))
    areas = np.array([box.width * box.height for box in boxes]) / (340 * 256)
    small = areas[areas < 0.5]  # larger ones are refused more often, for their aspect
    assert abs(np.median(small) - 0.29) < 0.02
    logs = np.log([box.width / box.height for box in boxes if box.width * box.height < 0.5 * 340 * 256])
    assert abs(np.mean(logs)) < 0.02 and np.abs(logs).max() < np.log(4 / 3) + 0.02


def test_an_extreme_frame_gives_the_centred_square() -> None:
    assert random_resized_crop(1000, 4, 0.9, rng(0)) == Box(498, 0, 502, 4)


def test_an_unknown_number_of_crops_is_refused() -> None:
    with pytest.raises(ValueError, match="1, 3, 5 or 10"):
        view_boxes(10, 10, 4, 2)
