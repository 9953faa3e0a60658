"""Flow measures a known motion, and survives its 8-bit form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisource.flow import estimator_of, flow_of_frames, to_bytes, to_pixels
from omnisource.flow.compute import ZERO, Method


def moving(dx: int, dy: int, frames: int = 3, size: int = 64) -> list[np.ndarray]:
    """A smooth random texture that moves by (dx, dy) pixels a frame."""
    random = np.random.default_rng(0)
    coarse = random.random((24, 24))
    texture = np.kron(coarse, np.ones((8, 8)))
    kernel = np.ones(9) / 9
    for axis in (0, 1):
        texture = np.apply_along_axis(np.convolve, axis, texture, kernel, "same")
    grey = (texture * 255).astype(np.uint8)
    crops = [grey[60 - dy * n : 60 - dy * n + size, 60 - dx * n : 60 - dx * n + size] for n in range(frames)]
    return [np.repeat(crop[..., None], 3, axis=2) for crop in crops]


@pytest.mark.parametrize("method", ["tvl1", "dis"])
@pytest.mark.parametrize("motion", [(3, 0), (0, -2)])
def test_a_known_motion_is_measured(method: Method, motion: tuple[int, int]) -> None:
    flows = list(flow_of_frames(moving(*motion), estimator_of(method)))
    assert len(flows) == 2
    inner = flows[0][16:-16, 16:-16]
    assert inner.shape == (32, 32, 2) and inner.dtype == np.float32
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), motion, atol=0.25)


def test_one_frame_alone_does_not_move() -> None:
    (flow,) = flow_of_frames(moving(0, 0, frames=1), estimator_of("dis"))
    assert not flow.any()
    assert (to_bytes(flow, 20) == ZERO).all()
    assert list(flow_of_frames([], estimator_of("dis"))) == []


@given(st.floats(-40, 40), st.sampled_from([5.0, 20.0]))
def test_bytes_keep_displacements_within_the_bound(value: float, bound: float) -> None:
    field = np.full((2, 2, 2), value, np.float32)
    back = to_pixels(to_bytes(field, bound), bound)
    np.testing.assert_allclose(back, np.clip(field, -bound, bound), atol=bound / 255 + 1e-4)


def test_the_usual_bound_uses_the_whole_range() -> None:
    ends = to_bytes(np.array([[[-20.0, 20.0]]], np.float32), 20)
    assert ends.ravel().tolist() == [0, 255]
