"""People and things as lists of parts: every part is the hull of a few balls, so one painter draws them all."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from omnisource.demo.poses import Array, Body, Joint

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """The hull of balls at `centres` (T, C, 3) with `radii` (C,) metres; `nearer` moves it forward in the drawing
    order by so many metres; `seen` (T,) hides it in some frames."""

    centres: Array
    radii: Array
    colour: Colour
    nearer: float = 0.0
    seen: np.ndarray | None = None
    outlined: bool = True


@dataclass(frozen=True)
class Look:
    """Clothes, skin and hair."""

    skin: Colour = (236, 188, 150)
    hair: Colour = (70, 45, 30)
    top: Colour = (210, 60, 60)
    bottom: Colour = (50, 70, 130)
    shoes: Colour = (60, 50, 50)
    hair_style: Literal["short", "long", "bun", "bald"] = "short"
    hat: Literal["", "cap", "beanie"] = ""
    hat_colour: Colour = (240, 200, 60)
    long_sleeves: bool = False
    legs: Literal["long", "short", "skirt"] = "long"
    eyes: Colour = field(default=(35, 30, 35))


def person(at: Array, body: Body, look: Look) -> list[Part]:
    """The parts of a person whose joints are `at` (T, J, 3)."""
    girth, head = body.girth, body.head
    parts: list[Part] = []

    def hull(
        balls: list[tuple[Array, float]], colour: Colour, nearer: float = 0.0, seen: np.ndarray | None = None,
        outlined: bool = True,
    ) -> None:  # fmt: skip
        centres = np.stack([centre for centre, _ in balls], axis=1)
        parts.append(Part(centres, np.array([radius for _, radius in balls]), colour, nearer, seen, outlined))

    def joint(name: str) -> Array:
        return at[:, Joint[name]]

    ahead, up, left = (joint(name) - joint("HEAD") for name in ("FACE", "CROWN", "EAR"))
    for side in "LR":
        hip, knee, ankle = joint(f"{side}_HIP"), joint(f"{side}_KNEE"), joint(f"{side}_ANKLE")
        shoulder, elbow, hand = joint(f"{side}_SHOULDER"), joint(f"{side}_ELBOW"), joint(f"{side}_HAND")
        calf = look.bottom if look.legs == "long" else look.skin
        forearm = look.top if look.long_sleeves else look.skin
        hull([(ankle, 0.05 * girth), (joint(f"{side}_TOE"), 0.045 * girth)], look.shoes, 0.01)
        hull([(knee, 0.068 * girth), (ankle, 0.05 * girth)], calf)
        hull([(hip, 0.1 * girth), (knee, 0.074 * girth)], look.bottom if look.legs != "skirt" else look.skin)
        hull([(elbow, 0.05 * girth), (hand, 0.04 * girth)], forearm, 0.06)
        hull([(shoulder, 0.07 * girth), (elbow, 0.056 * girth)], look.top, 0.05)
        hull([(hand, 0.055 * girth)], look.skin, 0.07)
    pelvis, chest = joint("PELVIS"), joint("CHEST")
    if look.legs == "skirt":
        hems = [(0.35 * joint(f"{side}_HIP") + 0.65 * joint(f"{side}_KNEE"), 0.15 * girth) for side in "LR"]
        hull([(pelvis, 0.13 * girth), *hems], look.bottom, 0.03)
    shoulders = [(joint(f"{side}_SHOULDER"), 0.075 * girth) for side in "LR"]
    hull([*shoulders, (0.85 * pelvis + 0.15 * chest, 0.13 * girth)], look.top, 0.02)
    hull([(chest, 0.055 * girth), (joint("HEAD") - 0.6 * up, 0.055 * girth)], look.skin, 0.0)

    # The face lies before the hair or behind it by depth alone, so a turned head needs no case of its own.
    skull = joint("HEAD")
    if look.hair_style != "bald":
        hull([(skull + 0.16 * up - 0.2 * ahead, 1.0 * head)], look.hair, 0.02)
    if look.hair_style == "long":
        hull([(skull - 0.3 * ahead, 0.95 * head), (skull - 1.3 * up - 0.5 * ahead, 0.6 * head)], look.hair, -0.01)
    if look.hair_style == "bun":
        hull([(skull + 1.15 * up - 0.35 * ahead, 0.42 * head)], look.hair, 0.0)
    hull([(skull + 0.2 * ahead - 0.12 * up, 0.86 * head)], look.skin, 0.03)
    if look.hat:
        hull(
            [(skull + 0.45 * up - 0.05 * ahead, 0.92 * head), (skull + 0.75 * up - 0.05 * ahead, 0.7 * head)],
            look.hat_colour,
            0.035,
        )
        if look.hat == "cap":
            brim = [(skull + 0.42 * up + reach * ahead, 0.2 * head) for reach in (0.8, 1.45)]
            hull(brim, look.hat_colour, 0.06)
    facing = ahead[:, 2] > 0.25 * head
    for sign in (-1.0, 1.0):
        eye = skull + 0.95 * ahead + sign * 0.32 * left + 0.02 * up
        hull([(eye, 0.12 * head)], look.eyes, 0.06, facing, outlined=False)
    mouth = [(skull + 0.95 * ahead + side * left - 0.42 * up, 0.06 * head) for side in (-0.2, 0.2)]
    hull(mouth, (150, 60, 60), 0.06, facing, outlined=False)
    return parts


def placed(points: Array, yaw: float, spot: Array) -> Array:
    """Points (..., 3) turned by `yaw` degrees about the vertical and moved to `spot` (3,)."""
    angle = np.radians(yaw)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return np.asarray(points @ turn.T + spot)


def chair(body: Body, colour: Colour, yaw: float, spot: Array, frames: int) -> list[Part]:
    """A chair whose seat is where `body`, its feet at the origin, sits down."""
    high = body.shin + 0.06 * body.girth - 0.12 * body.girth
    back, half = -body.thigh - 0.2, 0.22
    front = back + 0.42
    corners = [(x, z) for x in (-half, half) for z in (back, front)]
    dark = _shade(colour, 0.72)

    def still(points: list[tuple[float, float, float]], radius: float, tint: Colour, nearer: float) -> Part:
        fixed = placed(np.array(points), yaw, spot)
        return Part(np.repeat(fixed[None], frames, axis=0), np.full(len(points), radius), tint, nearer)

    legs = [still([(x, 0.02, z), (x, high, z)], 0.022, dark, -0.12) for x, z in corners]
    seat = still([(x, high, z) for x, z in corners], 0.03, colour, -0.1)
    rest = still([(x, y, back) for x in (-half, half) for y in (high + 0.14, high + 0.52)], 0.03, colour, -0.06)
    posts = [still([(x, high, back), (x, high + 0.5, back)], 0.022, dark, -0.07) for x in (-half, half)]
    return [*legs, seat, *posts, rest]


def drum(body: Body, colour: Colour, yaw: float, spot: Array, frames: int) -> list[Part]:
    """A drum on a stand, in front of `body` at the height of its hips."""
    high, wide, reach = body.thigh + body.shin - 0.02, 0.27, 0.47
    around = np.linspace(0, 2 * np.pi, 12, endpoint=False)

    def disc(level: float, radius: float) -> Array:
        return np.stack([radius * np.cos(around), np.full(12, level), reach + radius * np.sin(around)], axis=-1)

    def still(points: Array, thick: float, tint: Colour, nearer: float) -> Part:
        fixed = placed(points, yaw, spot)
        return Part(np.repeat(fixed[None], frames, axis=0), np.full(len(points), thick), tint, nearer)

    parts = []
    for angle in (0.5, 2.6, 4.7):
        foot = np.array([[0, high - 0.3, reach], [0.3 * np.cos(angle), 0.02, reach + 0.3 * np.sin(angle)]])
        parts.append(still(foot, 0.02, (90, 90, 95), 0.0))
    parts.append(still(np.concatenate([disc(high - 0.32, wide), disc(high, wide)]), 0.01, colour, 0.02))
    parts.append(still(disc(high - 0.01, 1.04 * wide), 0.02, _shade(colour, 0.6), 0.03))
    parts.append(still(disc(high + 0.01, wide), 0.012, (244, 238, 222), 0.04))
    return parts


def sticks(at: Array) -> list[Part]:
    """Drumsticks that carry on where the forearms of `at` (T, J, 3) end."""
    parts, colour = [], (222, 184, 120)
    for side in "LR":
        hand, elbow = at[:, Joint[f"{side}_HAND"]], at[:, Joint[f"{side}_ELBOW"]]
        ahead = (hand - elbow) / np.linalg.norm(hand - elbow, axis=-1, keepdims=True)
        parts.append(Part(np.stack([hand, hand + 0.3 * ahead], axis=1), np.array([0.022, 0.018]), colour, 0.12))
    return parts


def ball(centres: Array, radius: float, colour: Colour, seen: np.ndarray | None = None) -> list[Part]:
    """A ball at `centres` (T, 3) with a light spot."""
    spot = centres + radius * np.array([-0.3, 0.3, 0.5])
    return [
        Part(centres[:, None], np.array([radius]), colour, 0.05, seen),
        Part(spot[:, None], np.array([0.3 * radius]), _shade(colour, 1.5), 0.06, seen, outlined=False),
    ]


def thrown(hand: Array, held: np.ndarray, way: Array, fps: float) -> Array:
    """Where the ball (T, 3) is: in the `hand` (T, 3) while `held` (T,), then flying `way` (3,) m/s under gravity."""
    frames = np.arange(len(hand))
    last_held = np.maximum.accumulate(np.where(held, frames, 0))
    seconds = ((frames - last_held) / fps)[:, None]
    return np.asarray(hand[last_held] + seconds * way + np.array([0, 0.06, 0]) - seconds**2 * np.array([0, 4.9, 0]))


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue
