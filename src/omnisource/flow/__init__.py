"""Optical flow: computed once, stored as small videos, read like any other video."""

from omnisource.flow.compute import estimator_of, flow_of_frames, to_bytes, to_pixels
from omnisource.flow.stage import compute_flow, use_flow
from omnisource.flow.store import write_flow

__all__ = ["compute_flow", "estimator_of", "flow_of_frames", "to_bytes", "to_pixels", "use_flow", "write_flow"]
