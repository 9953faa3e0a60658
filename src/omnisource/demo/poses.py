"""A stick person in three dimensions: joint angles in, joint positions out, for all frames of a shot at once.

The person stands at the origin and looks along +z, towards the viewer; +x is the person's left (the viewer's
right), +y is up. Lengths are metres, angles are degrees wherever an action is written down.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, auto

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Dof(IntEnum):
    """What can move. A bone points down at (0, 0); OUT lifts it sideways, FWD swings it to the front."""

    LEAN = 0  # upper body to the front
    TILT = auto()  # upper body to the person's left
    TWIST = auto()  # shoulders about the spine
    ROLL = auto()  # the whole person about the line of sight: a cartwheel
    TURN = auto()  # the whole person about the vertical
    NOD = auto()
    LOOK = auto()
    LIFT = auto()  # metres above the ground
    STEP = auto()  # metres to the person's left
    L_ARM_OUT = auto()
    L_ARM_FWD = auto()
    L_FORE_OUT = auto()
    L_FORE_FWD = auto()
    R_ARM_OUT = auto()
    R_ARM_FWD = auto()
    R_FORE_OUT = auto()
    R_FORE_FWD = auto()
    L_THIGH_OUT = auto()
    L_THIGH_FWD = auto()
    L_SHIN_OUT = auto()
    L_SHIN_FWD = auto()
    R_THIGH_OUT = auto()
    R_THIGH_FWD = auto()
    R_SHIN_OUT = auto()
    R_SHIN_FWD = auto()


class Joint(IntEnum):
    PELVIS = 0
    L_HIP = auto()
    R_HIP = auto()
    CHEST = auto()
    L_SHOULDER = auto()
    R_SHOULDER = auto()
    L_ELBOW = auto()
    R_ELBOW = auto()
    L_HAND = auto()
    R_HAND = auto()
    L_KNEE = auto()
    R_KNEE = auto()
    L_ANKLE = auto()
    R_ANKLE = auto()
    L_TOE = auto()
    R_TOE = auto()
    HEAD = auto()
    FACE = auto()  # HEAD + one head radius to the front
    CROWN = auto()  # HEAD + one head radius up
    EAR = auto()  # HEAD + one head radius to the person's left


@dataclass(frozen=True)
class Body:
    """Lengths in metres; `girth` scales the thickness of everything."""

    torso: float = 0.48
    shoulder: float = 0.19
    hip: float = 0.09
    upper_arm: float = 0.27
    forearm: float = 0.25
    thigh: float = 0.41
    shin: float = 0.41
    foot: float = 0.15
    head: float = 0.15
    girth: float = 1.0


def pose(both: Mapping[str, float] | None = None, /, **angles: float) -> Array:
    """A pose (P,) that hangs loosely except where told: `LEAN=20`, and `{"ARM_OUT": 90}` for left and right."""
    values = np.zeros(len(Dof))
    for side in "LR":
        values[Dof[f"{side}_ARM_OUT"]] = 8
        values[Dof[f"{side}_FORE_OUT"]] = 5
        values[Dof[f"{side}_FORE_FWD"]] = 12
        values[Dof[f"{side}_THIGH_OUT"]] = 5
        values[Dof[f"{side}_SHIN_OUT"]] = 3
        for name, value in (both or {}).items():
            values[Dof[f"{side}_{name}"]] = value
    for name, value in angles.items():
        values[Dof[name]] = value
    return values


def keyed(t: Array, keys: list[tuple[float, Array]]) -> Array:
    """Poses (T, P) at the times `t` that ease from key to key; before the first and after the last they rest."""
    times = np.array([time for time, _ in keys])
    poses = np.stack([key for _, key in keys])
    after = np.clip(np.searchsorted(times, t, side="right"), 1, len(keys) - 1)
    share = np.clip((t - times[after - 1]) / (times[after] - times[after - 1]), 0.0, 1.0)
    eased = (share * share * (3 - 2 * share))[:, None]
    return np.asarray(poses[after - 1] * (1 - eased) + poses[after] * eased)


def mirrored(poses: Array) -> Array:
    """The same movement of a left-hander."""
    swapped = poses.copy()
    for name in ("ARM_OUT", "ARM_FWD", "FORE_OUT", "FORE_FWD", "THIGH_OUT", "THIGH_FWD", "SHIN_OUT", "SHIN_FWD"):
        swapped[..., Dof[f"L_{name}"]] = poses[..., Dof[f"R_{name}"]]
        swapped[..., Dof[f"R_{name}"]] = poses[..., Dof[f"L_{name}"]]
    for dof in (Dof.TILT, Dof.TWIST, Dof.ROLL, Dof.LOOK, Dof.STEP, Dof.TURN):
        swapped[..., dof] *= -1
    return swapped


def joints(poses: Array, body: Body, *, planted: bool = True) -> Array:
    """Joint positions (T, J, 3) for poses (T, P).

    The lowest foot or hand touches the ground (y = 0) but for LIFT. With `planted` the feet stay in place and the
    hips move over them, else the hips stay and the feet move.
    """
    radians = np.radians(poses)

    def bone(side: str, part: str, length: float) -> Array:
        out, forward = radians[:, Dof[f"{side}_{part}_OUT"]], radians[:, Dof[f"{side}_{part}_FWD"]]
        sign = 1.0 if side == "L" else -1.0
        across, down, ahead = sign * np.sin(out), -np.cos(out) * np.cos(forward), np.cos(out) * np.sin(forward)
        return length * np.stack([across, down, ahead], axis=-1)

    def turned(by: Array, vectors: Array) -> Array:
        return np.asarray(np.einsum("tij,tj->ti", by, np.broadcast_to(vectors, (len(by), 3))))

    upper = _about(1, radians[:, Dof.TWIST]) @ _about(2, -radians[:, Dof.TILT]) @ _about(0, radians[:, Dof.LEAN])
    gaze = upper @ _about(1, radians[:, Dof.LOOK]) @ _about(0, radians[:, Dof.NOD])
    at = np.zeros((len(poses), len(Joint), 3))
    at[:, Joint.CHEST] = turned(upper, np.array([0, body.torso, 0]))
    for side, sign in (("L", 1.0), ("R", -1.0)):
        hip, shoulder = Joint[f"{side}_HIP"], Joint[f"{side}_SHOULDER"]
        elbow, knee, ankle = Joint[f"{side}_ELBOW"], Joint[f"{side}_KNEE"], Joint[f"{side}_ANKLE"]
        at[:, hip] = (sign * body.hip, 0, 0)
        at[:, knee] = at[:, hip] + bone(side, "THIGH", body.thigh)
        at[:, ankle] = at[:, knee] + bone(side, "SHIN", body.shin)
        at[:, Joint[f"{side}_TOE"]] = at[:, ankle] + (sign * body.foot * 0.25, -0.01, body.foot)
        at[:, shoulder] = at[:, Joint.CHEST] + turned(upper, np.array([sign * body.shoulder, -0.04, 0]))
        at[:, elbow] = at[:, shoulder] + turned(upper, bone(side, "ARM", body.upper_arm))
        at[:, Joint[f"{side}_HAND"]] = at[:, elbow] + turned(upper, bone(side, "FORE", body.forearm))
    at[:, Joint.HEAD] = at[:, Joint.CHEST] + turned(gaze, np.array([0, 0.03 + body.head, 0.02]))
    for joint, axis in ((Joint.EAR, 0), (Joint.CROWN, 1), (Joint.FACE, 2)):
        at[:, joint] = at[:, Joint.HEAD] + body.head * gaze[:, :, axis]

    at = np.einsum("tij,tnj->tni", _about(2, -radians[:, Dof.ROLL]), at)
    touching = [Joint.L_ANKLE, Joint.R_ANKLE, Joint.L_HAND, Joint.R_HAND]
    sole = 0.06 * body.girth
    at[:, :, 1] += (sole - at[:, touching, 1].min(axis=1) + poses[:, Dof.LIFT])[:, None]
    if planted:
        feet = at[:, [Joint.L_ANKLE, Joint.R_ANKLE]].mean(axis=1)
        at[:, :, [0, 2]] -= feet[:, None, [0, 2]]
    at[:, :, 0] += poses[:, Dof.STEP, None]
    return np.asarray(np.einsum("tij,tnj->tni", _about(1, radians[:, Dof.TURN]), at))


def _about(axis: int, angle: Array) -> Array:
    """Rotation matrices (T, 3, 3) about x, y or z."""
    matrix = np.zeros((len(angle), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, i, i] = matrix[:, j, j] = np.cos(angle)
    matrix[:, i, j], matrix[:, j, i] = -np.sin(angle), np.sin(angle)
    return matrix
