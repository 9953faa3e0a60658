"""Unified clips: from samples of any format to what a network sees."""

from omnisource.clips.augment import augment
from omnisource.clips.keys import rng
from omnisource.clips.mixup import mix, smooth, soft_labels
from omnisource.clips.read import Crop, centre, read_clip, read_times, read_views
from omnisource.clips.snippets import snippet_times
from omnisource.clips.spatial import Box, random_resized_crop, view_boxes
from omnisource.clips.temporal import dense_test, dense_train, segment_test, segment_train
from omnisource.clips.windows import frame_times, windows

__all__ = [
    "Box",
    "Crop",
    "augment",
    "centre",
    "dense_test",
    "dense_train",
    "frame_times",
    "mix",
    "random_resized_crop",
    "read_clip",
    "read_times",
    "read_views",
    "rng",
    "segment_test",
    "segment_train",
    "smooth",
    "snippet_times",
    "soft_labels",
    "view_boxes",
    "windows",
]
