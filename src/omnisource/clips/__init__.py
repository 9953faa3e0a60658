"""Unified clips: from samples of any format to what a network sees."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from omnisource.clips.camera import Camera, aim, draw_path, load_camera, save_camera
from omnisource.clips.fit import Footage, fit_camera
from omnisource.clips.keys import rng
from omnisource.clips.read import Crop, centre, read_clip, read_moving, read_times, read_views
from omnisource.clips.sheet import camera_sheet
from omnisource.clips.snippets import snippet_times
from omnisource.clips.spatial import Box, random_resized_crop, view_boxes
from omnisource.clips.stage import camera_path, fit_camera_stage, target_footage
from omnisource.clips.temporal import dense_test, dense_train, piece_frames, segment_test, segment_train, stride_in
from omnisource.clips.windows import frame_times, windows

if TYPE_CHECKING:
    from omnisource.clips.device import FLOW_MEAN, FLOW_STD, augment
    from omnisource.clips.mixup import mix, smooth, soft_labels

__all__ = [
    "FLOW_MEAN",
    "FLOW_STD",
    "Box",
    "Camera",
    "Crop",
    "Footage",
    "aim",
    "augment",
    "camera_path",
    "camera_sheet",
    "centre",
    "dense_test",
    "dense_train",
    "draw_path",
    "fit_camera",
    "fit_camera_stage",
    "frame_times",
    "load_camera",
    "mix",
    "piece_frames",
    "random_resized_crop",
    "read_clip",
    "read_moving",
    "read_times",
    "read_views",
    "rng",
    "save_camera",
    "segment_test",
    "segment_train",
    "smooth",
    "snippet_times",
    "soft_labels",
    "stride_in",
    "target_footage",
    "view_boxes",
    "windows",
]

# What runs on the device is imported when it is first asked for: processes that only decode start without torch.
_ON_DEVICE = {
    **dict.fromkeys(("FLOW_MEAN", "FLOW_STD", "augment"), "device"),
    **dict.fromkeys(("mix", "smooth", "soft_labels"), "mixup"),
}


def __getattr__(name: str) -> Any:
    if name in _ON_DEVICE:
        return getattr(import_module(f"{__name__}.{_ON_DEVICE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
