"""Which frames and crops of a sample a network is asked about, by hand."""

from typing import Any

import pytest

from omnisource.errors import UserError
from omnisource.evaluate.views import crop_size, frame_count, view_request
from omnisource.recipe import Input
from omnisource.recipe import Test as Views

GIVEN = Input(frames=4, stride=2, size=32, short_side=40)
SAMPLE = {"sample_id": "a", "uri": "/a.mp4", "format": "clip", "start_s": None, "end_s": None}
FACTS = {"kind": "video", "fps": 10.0, "num_frames": 100, "duration_s": 10.0}


def asked(sample: dict[str, Any], facts: dict[str, Any], spatial: bool, **views: Any) -> Any:
    return view_request(SAMPLE | sample, FACTS | facts, GIVEN, Views(**{"clips": 2, "crops": 1} | views), spatial)


def test_a_picture_is_one_frame_and_as_long_as_a_clip_for_a_3d_network() -> None:
    for sample, facts in (({"format": "image"}, {}), ({}, {"kind": "image"})):
        deep, flat = (asked(sample, facts, spatial, crops=3) for spatial in (False, True))
        assert deep.clips.tolist() == flat.clips.tolist() == [[0]]
        assert (deep.length, flat.length, deep.crops) == (4, None, 3)


def test_clips_of_a_video_lie_from_its_first_to_its_last_frame() -> None:
    deep = asked({}, {}, spatial=False)
    assert deep.clips.tolist() == [[0, 2, 4, 6], [93, 95, 97, 99]] and deep.length is None
    assert (deep.key, deep.uri, deep.start_s, deep.end_s) == ("a", "/a.mp4", 0.0, None)
    piece = asked({"start_s": 2.0, "end_s": 3.0}, {}, spatial=False)
    assert piece.clips.tolist() == [[0, 2, 4, 6], [3, 5, 7, 9]] and (piece.start_s, piece.end_s) == (2.0, 3.0)
    slow = view_request(SAMPLE, FACTS, GIVEN.model_copy(update={"fps": 5.0}), Views(clips=1, crops=1), False)
    assert slow.clips.tolist() == [[43, 47, 51, 55]], "twice as many frames a second, so twice as far apart"


def test_a_2d_network_sees_the_middle_of_equal_parts() -> None:
    assert asked({}, {}, spatial=True).clips.tolist() == [[25, 75]]
    assert asked({"start_s": 2.0, "end_s": 4.0}, {}, spatial=True).clips.tolist() == [[5, 15]]


@pytest.mark.parametrize(
    ("sample", "facts", "frames"),
    [
        ({}, {}, 100),
        ({}, {"num_frames": None}, 100),
        ({}, {"num_frames": None, "duration_s": 4.06}, 41),
        ({"start_s": 9.5}, {}, 5),
        ({"start_s": 1.0, "end_s": 2.5}, {}, 15),
        ({}, {"num_frames": None, "duration_s": None}, 1),
        ({}, {"num_frames": None, "fps": None}, 1),
    ],
)
def test_frames_of_a_sample(sample: dict[str, Any], facts: dict[str, Any], frames: int) -> None:
    assert frame_count(SAMPLE | sample, FACTS | facts) == frames


def test_the_side_of_a_crop() -> None:
    assert crop_size(GIVEN, Views(crops=3)) == 40
    assert crop_size(GIVEN, Views(crops=1)) == crop_size(GIVEN, Views(crops=10)) == 32
    assert crop_size(Input(size=48, short_side=40), Views(crops=1)) == 40
    assert crop_size(GIVEN, Views(crops=3, size=40)) == 40 and crop_size(GIVEN, Views(crops=3, size=36)) == 36
    with pytest.raises(UserError, match="a crop of 41 does not fit"):
        crop_size(GIVEN, Views(crops=3, size=41))
