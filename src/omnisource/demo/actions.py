"""What the people of the miniature world do: one function an action, from the time in seconds to poses."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from omnisource.demo.poses import Array, Dof, keyed, mirrored, pose


@dataclass(frozen=True)
class Style:
    """How one person does it: `tempo` and `swing` are factors about 1, `phase` is in 0..1."""

    tempo: float = 1.0
    swing: float = 1.0
    phase: float = 0.0
    left_handed: bool = False
    variant: float = 0.0  # 0..1, read by actions that people do in more than one way


@dataclass(frozen=True)
class Motion:
    """Poses (T, P) and what goes with them: `held` (T,) is True while the ball is in the throwing hand."""

    poses: Array
    planted: bool = True
    thing: str = ""  # chair, drum or ball
    held: np.ndarray | None = None
    throwing_left: bool = False


Action = Callable[[Array, Style], Motion]

STAND = pose()
SEATED = pose({"THIGH_FWD": 86, "SHIN_FWD": 4, "THIGH_OUT": 8, "ARM_FWD": 22, "FORE_FWD": 72, "ARM_OUT": 10}, LEAN=2)


def waving(t: Array, style: Style) -> Motion:
    high = 20 * style.variant
    swing = np.sin(2 * math.pi * (1.7 * style.tempo * t + style.phase))
    inner = pose(R_ARM_OUT=118 + high, R_ARM_FWD=5, R_FORE_OUT=148, R_FORE_FWD=0, TILT=3)
    outer = pose(R_ARM_OUT=106 + high, R_ARM_FWD=5, R_FORE_OUT=212, R_FORE_FWD=0, TILT=-3)
    if style.variant > 0.75:  # both arms, as if calling a boat
        for key, angle in ((inner, 150), (outer, 208)):
            key[Dof.L_ARM_OUT], key[Dof.L_FORE_OUT], key[Dof.L_FORE_FWD] = 125, angle, 0
    return Motion(_handed(_swung(inner, outer, swing * style.swing), style))


def jumping_jacks(t: Array, style: Style) -> Motion:
    turn = 2 * math.pi * (1.15 * style.tempo * t + style.phase)
    closed = pose({"ARM_OUT": 8, "FORE_OUT": 6, "THIGH_OUT": 2, "SHIN_OUT": 2})
    wide = pose({"ARM_OUT": 140, "FORE_OUT": 166, "FORE_FWD": 0, "THIGH_OUT": 30, "SHIN_OUT": 27})
    poses = _swung(closed, wide, -np.cos(turn) * style.swing)
    poses[:, Dof.LIFT] += 0.13 * np.abs(np.sin(turn))
    return Motion(poses)


def squatting(t: Array, style: Style) -> Motion:
    depth = np.cos(2 * math.pi * (0.62 * style.tempo * t + style.phase))
    arms = {"ARM_FWD": 85.0, "FORE_FWD": 92.0} if style.variant < 0.6 else {"ARM_OUT": 40.0, "FORE_FWD": 150.0}
    low = pose({"THIGH_FWD": 108, "SHIN_FWD": -38, "THIGH_OUT": 22, "SHIN_OUT": 4, **arms}, LEAN=30, NOD=-18)
    return Motion(_swung(pose({"THIGH_OUT": 9}), low, -depth * style.swing))


def cartwheeling(t: Array, style: Style) -> Motion:
    """Wheels to one side and back again, with a short rest between."""
    period = 1.25 / style.tempo
    count = t / period + style.phase
    share = np.clip((count % 1.0) / 0.86, 0, 1)
    eased = share - 0.10 * np.sin(2 * math.pi * share)
    back = np.floor(count) % 2 == 1
    way = np.where(back, 1 - eased, eased)
    star = {"ARM_OUT": 160, "FORE_OUT": 168, "FORE_FWD": 0, "THIGH_OUT": 34, "SHIN_OUT": 32}
    poses = np.repeat(pose(star)[None], len(t), axis=0)
    poses[:, Dof.ROLL] = 360 * way
    poses[:, Dof.STEP] = 1.5 * (way - 0.5)
    return Motion(_handed(poses, style), planted=False)


def throwing_ball(t: Array, style: Style) -> Motion:
    """Winds up, throws overarm, follows through and has the next ball."""
    period = 1.7 / style.tempo
    share = (t / period + style.phase) % 1.0
    stride: dict[str, float] = {"L_THIGH_FWD": 22.0, "L_SHIN_FWD": 4.0, "R_THIGH_FWD": -16.0, "R_SHIN_FWD": -26.0}
    ready = pose(R_ARM_FWD=35, R_FORE_FWD=95, L_ARM_FWD=30, L_FORE_FWD=85, **stride)
    wound = pose(
        R_ARM_OUT=62, R_ARM_FWD=-70, R_FORE_OUT=50, R_FORE_FWD=-150, L_ARM_FWD=80, L_FORE_FWD=95,
        LEAN=-14, TWIST=-38, **stride,
    )  # fmt: skip
    released = pose(R_ARM_FWD=150, R_FORE_FWD=128, L_ARM_FWD=10, L_FORE_FWD=20, LEAN=14, TWIST=22, **stride)
    through = pose(R_ARM_FWD=35, R_FORE_FWD=20, L_ARM_FWD=-30, L_FORE_FWD=10, LEAN=30, TWIST=30, **stride)
    poses = keyed(share, [(0.0, ready), (0.32, wound), (0.42, wound), (0.54, released), (0.66, through), (0.9, ready)])
    held = (share < 0.54) | (share > 0.88)
    return Motion(_handed(poses, style), thing="ball", held=held, throwing_left=style.left_handed)


def drumming(t: Array, style: Style) -> Motion:
    beat = 2 * math.pi * (2.1 * style.tempo * t + style.phase)
    down = pose({"ARM_OUT": 22, "ARM_FWD": 18, "FORE_OUT": 4, "FORE_FWD": 68}, LEAN=8, NOD=14)
    poses = np.repeat(down[None], len(t), axis=0)
    for side, offset in (("L", 0.0), ("R", math.pi)):
        up = np.clip(np.sin(beat + offset), 0, 1) ** 0.7 * style.swing
        poses[:, Dof[f"{side}_FORE_FWD"]] += 78 * up
        poses[:, Dof[f"{side}_ARM_FWD"]] += 22 * up
    poses[:, Dof.NOD] += 7 * np.sin(beat)
    return Motion(poses, thing="drum")


def sitting_down(t: Array, style: Style) -> Motion:
    start = 0.25 + 0.45 * style.phase
    takes = 0.95 / style.tempo
    bending = pose(
        {"THIGH_FWD": 48, "SHIN_FWD": -22, "ARM_FWD": 30 + 20 * style.variant, "FORE_FWD": 55}, LEAN=36, NOD=-12
    )
    keys = [(start, STAND), (start + 0.5 * takes, bending), (start + takes, SEATED)]
    return Motion(keyed(t, keys), thing="chair")


def standing_up(t: Array, style: Style) -> Motion:
    """Sitting down, run backwards: only the direction in time tells the two apart."""
    whole = 1.45 + 0.45 * style.phase
    return sitting_down(whole - t, style)


def idling(t: Array, style: Style) -> Motion:
    """Shifts weight and looks about."""
    slow = np.sin(2 * math.pi * (0.22 * style.tempo * t + style.phase))
    poses = np.repeat(STAND[None], len(t), axis=0)
    poses[:, Dof.TILT] = 4 * slow
    poses[:, Dof.LOOK] = 38 * np.sin(2 * math.pi * (0.17 * t + style.variant))
    return Motion(poses)


def phoning(t: Array, style: Style) -> Motion:
    held = pose(R_ARM_OUT=28, R_ARM_FWD=30, R_FORE_OUT=20, R_FORE_FWD=160, NOD=10, LOOK=-8)
    poses = np.repeat(held[None], len(t), axis=0)
    poses[:, Dof.TILT] = 4 * np.sin(2 * math.pi * (0.3 * style.tempo * t + style.phase))
    return Motion(_handed(poses, style))


def walking(t: Array, style: Style) -> Motion:
    """Strides to and fro across the picture."""
    beat = 2 * math.pi * (0.9 * style.tempo * t + style.phase)
    poses = np.repeat(STAND[None], len(t), axis=0)
    for side, offset in (("L", 0.0), ("R", math.pi)):
        stride = np.sin(beat + offset)
        poses[:, Dof[f"{side}_THIGH_FWD"]] = 28 * stride
        poses[:, Dof[f"{side}_SHIN_FWD"]] = 28 * stride - 26 * np.clip(np.cos(beat + offset), 0, 1)
        poses[:, Dof[f"{side}_ARM_FWD"]] = -26 * stride
        poses[:, Dof[f"{side}_FORE_FWD"]] = -26 * stride + 18
    lap = (0.16 * style.tempo * t + style.phase) % 1.0
    poses[:, Dof.STEP] = 2.2 * (np.abs(2 * lap - 1) - 0.5)
    poses[:, Dof.LOOK] = np.where(lap < 0.5, -60, 60)
    return Motion(_handed(poses, style), planted=False)


def seated(t: Array, style: Style) -> Motion:
    poses = np.repeat(SEATED[None], len(t), axis=0)
    poses[:, Dof.LOOK] = 30 * np.sin(2 * math.pi * (0.2 * style.tempo * t + style.phase))
    return Motion(poses, thing="chair")


ACTIONS: dict[str, Action] = {
    "cartwheeling": cartwheeling,
    "drumming": drumming,
    "jumping jacks": jumping_jacks,
    "sitting down": sitting_down,
    "squatting": squatting,
    "standing up": standing_up,
    "throwing ball": throwing_ball,
    "waving": waving,
}
"""The classes. Sitting down and standing up differ only by the direction of time."""

PASTIMES: dict[str, Action] = {"idling": idling, "phoning": phoning, "walking": walking, "seated": seated}
"""What people do between actions, or instead of them: no class."""


def _swung(low: Array, high: Array, wave: Array) -> Array:
    """Poses (T, P) that follow `wave`, -1 at `low` and 1 at `high`."""
    share = (0.5 + 0.5 * wave)[:, None]
    return np.asarray(low + share * (high - low))


def _handed(poses: Array, style: Style) -> Array:
    return mirrored(poses) if style.left_handed else poses
