"""The stick person: bones keep their length, feet keep to the ground."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from omnisource.demo.poses import Array, Body, Dof, Joint, joints, keyed, mirrored, pose

POSES = arrays(np.float64, (3, len(Dof)), elements=st.floats(-180, 180))


@given(POSES)
def test_bones_keep_their_length(poses: Array) -> None:
    body = Body()
    at = joints(poses, body)
    for one, other, length in (("L_HIP", "L_KNEE", body.thigh), ("R_KNEE", "R_ANKLE", body.shin),
                               ("R_SHOULDER", "R_ELBOW", body.upper_arm), ("L_ELBOW", "L_HAND", body.forearm),
                               ("HEAD", "FACE", body.head)):  # fmt: skip
        found = np.linalg.norm(at[:, Joint[one]] - at[:, Joint[other]], axis=-1)
        assert np.allclose(found, length)


@given(POSES)
def test_nobody_sinks_into_the_ground_or_floats(poses: Array) -> None:
    poses[:, Dof.LIFT] = 0
    at = joints(poses, Body())
    lowest = at[:, [Joint.L_ANKLE, Joint.R_ANKLE, Joint.L_HAND, Joint.R_HAND], 1].min(axis=1)
    assert np.allclose(lowest, 0.06)


@given(POSES)
def test_a_mirrored_pose_is_the_mirror_image(poses: Array) -> None:
    poses[:, Dof.LIFT] = 0
    at, other = joints(poses, Body()), joints(mirrored(poses), Body())
    assert np.allclose(at[:, Joint.L_HAND] * (-1, 1, 1), other[:, Joint.R_HAND])
    assert np.allclose(at[:, Joint.R_TOE] * (-1, 1, 1), other[:, Joint.L_TOE])


def test_arms_go_where_the_angles_say() -> None:
    up, forward = pose({"ARM_OUT": 180, "FORE_OUT": 180, "FORE_FWD": 0}), pose({"ARM_FWD": 90, "FORE_FWD": 90})
    at = joints(np.stack([up, forward]), Body())
    assert at[0, Joint.L_HAND, 1] > at[0, Joint.CROWN, 1]
    assert at[1, Joint.L_HAND, 2] > 0.4


def test_keys_are_met_and_the_ends_rest() -> None:
    low, high = pose(), pose(LEAN=40)
    lean = keyed(np.array([-1.0, 0.5, 1.0, 1.5, 9.0]), [(0.5, low), (1.5, high)])[:, Dof.LEAN]
    assert lean == pytest.approx([0, 0, 20, 40, 40])
