"""The actions do what their names say."""

import numpy as np
import pytest

from omnisource.demo.actions import ACTIONS, PASTIMES, Style
from omnisource.demo.poses import Array, Body, Joint, joints

TIMES = np.arange(0, 4, 0.05)


def course(action: str, style: Style | None = None) -> Array:
    motion = (ACTIONS | PASTIMES)[action](TIMES, style or Style())
    return joints(motion.poses, Body(), planted=motion.planted)


@pytest.mark.parametrize("action", [*ACTIONS, *PASTIMES])
def test_movements_are_smooth_and_move(action: str) -> None:
    at = course(action)
    step = np.linalg.norm(np.diff(at, axis=0), axis=-1)
    assert np.isfinite(at).all()
    assert step.max() < 1.0  # metres in a twentieth of a second
    assert step.max() > 0.001


def test_standing_up_is_sitting_down_backwards() -> None:
    style = Style(phase=0.4, tempo=1.1)
    whole = 1.45 + 0.45 * style.phase
    forward = ACTIONS["sitting down"](TIMES, style).poses
    backward = ACTIONS["standing up"](whole - TIMES, style).poses
    assert np.allclose(forward, backward)
    hips = joints(forward, Body())[:, Joint.PELVIS, 1]
    assert hips[0] > hips[-1] + 0.25


def test_waving_lifts_a_hand_above_the_shoulder() -> None:
    at = course("waving")
    assert (at[:, Joint.R_HAND, 1] > at[:, Joint.R_SHOULDER, 1]).all()
    assert (at[:, Joint.L_HAND, 1] < at[:, Joint.L_SHOULDER, 1]).all()
    left = course("waving", Style(left_handed=True))
    assert (left[:, Joint.L_HAND, 1] > left[:, Joint.L_SHOULDER, 1]).all()


def test_jumping_jacks_leave_the_ground_and_lift_both_hands() -> None:
    at = course("jumping jacks")
    assert at[:, [Joint.L_ANKLE, Joint.R_ANKLE], 1].min(axis=1).max() > 0.15
    hands = at[:, [Joint.L_HAND, Joint.R_HAND], 1].min(axis=1)
    assert hands.max() > at[:, Joint.HEAD, 1].max() - 0.1
    assert hands.min() < at[:, Joint.PELVIS, 1].max()


def test_squatting_lowers_the_hips_again_and_again() -> None:
    hips = course("squatting")[:, Joint.PELVIS, 1]
    assert hips.min() < 0.55 * hips.max()
    assert (np.diff(np.sign(hips - hips.mean())) != 0).sum() >= 4


def test_cartwheeling_puts_the_feet_above_the_head() -> None:
    at = course("cartwheeling")
    assert (at[:, Joint.L_ANKLE, 1] > at[:, Joint.HEAD, 1]).any()
    assert np.ptp(at[:, Joint.PELVIS, 0]) > 1.0


def test_the_ball_leaves_the_hand() -> None:
    motion = ACTIONS["throwing ball"](TIMES, Style())
    assert motion.held is not None and motion.held.any() and not motion.held.all()


def test_the_drummer_moves_one_hand_at_a_time() -> None:
    at = course("drumming")
    heights = at[:, [Joint.L_HAND, Joint.R_HAND], 1]
    assert np.corrcoef(heights.T)[0, 1] < -0.3
