"""Places: each kind is a painter that lays sky or wall, ground and furniture on a canvas wider than the picture."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from omnisource.demo.parts import Colour
from omnisource.demo.view import View

Picture = NDArray[np.uint8]
MARGIN = 0.35
"""How far the canvas reaches beyond the picture on each side, as a share of the picture's size."""


@dataclass(frozen=True)
class Scene:
    """A place: two scenes of one kind and different seeds differ in layout, colours and light."""

    kind: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.seed}"


@dataclass(frozen=True)
class Light:
    """Where shadows fall, in metres per metre of height, how dark they are, and the colour of the light."""

    shadow: tuple[float, float]
    depth: float
    tint: tuple[float, float, float]


class Canvas:
    """A picture in the making, in RGB; `horizon` is a row, `metre` the pixels of a metre where people stand."""

    def __init__(self, view: View, rng: np.random.Generator) -> None:
        self.width, self.height = (round(side * (1 + 2 * MARGIN)) for side in (view.width, view.height))
        self.horizon = round((MARGIN + view.horizon) * view.height)
        self.metre = view.pixels_per_metre
        self.feet = self.horizon + round(view.eye_height * self.metre)
        self.rng = rng
        self.pixels: Picture = np.zeros((self.height, self.width, 3), np.uint8)

    def fade(self, top: int, bottom: int, first: Colour, last: Colour) -> None:
        """Fills the rows from `top` to `bottom` with a gradient."""
        share = np.linspace(0, 1, max(bottom - top, 1))[:, None, None]
        self.pixels[top:bottom] = np.asarray(first) * (1 - share) + np.asarray(last) * share

    def blob(self, x: float, y: float, wide: float, high: float, colour: Colour) -> None:
        axes = (max(round(wide), 1), max(round(high), 1))
        cv2.ellipse(self.pixels, (round(x), round(y)), axes, 0, 0, 360, colour, -1, cv2.LINE_AA)

    def box(self, x: float, y: float, wide: float, high: float, colour: Colour) -> None:
        """A rectangle whose lower left corner is at (x, y)."""
        corner, opposite = (round(x), round(y - high)), (round(x + wide), round(y))
        cv2.rectangle(self.pixels, corner, opposite, colour, -1)

    def shape(self, points: list[tuple[float, float]], colour: Colour) -> None:
        cv2.fillPoly(self.pixels, [np.round(points).astype(np.int32)], colour, cv2.LINE_AA)

    def line(self, start: tuple[float, float], end: tuple[float, float], colour: Colour, thick: float) -> None:
        a, b = ((round(x), round(y)) for x, y in (start, end))
        cv2.line(self.pixels, a, b, colour, max(round(thick), 1), cv2.LINE_AA)

    def boards(self, colour: Colour, count: int = 14) -> None:
        """Lines on the ground that meet at the horizon."""
        centre = self.width / 2 + self.rng.uniform(-0.3, 0.3) * self.width
        for index in range(-count, count + 1):
            self.line((centre, self.horizon), (centre + index * 1.1 * self.metre, self.height), colour, 1)

    def grain(self, amount: float) -> None:
        """Mottles the ground."""
        ground = self.pixels[self.horizon :]
        small = self.rng.normal(0, amount, (len(ground) // 6 + 1, self.width // 10 + 1, 1)).astype(np.float32)
        noise = cv2.resize(small, (self.width, len(ground)), interpolation=cv2.INTER_CUBIC)[:, :, None]
        ground[:] = np.clip(ground + noise, 0, 255)

    def pick(self, *colours: Colour) -> Colour:
        """One of the colours, a little changed."""
        chosen = np.asarray(colours[self.rng.integers(len(colours))]) + self.rng.normal(0, 10, 3)
        red, green, blue = (int(channel) for channel in np.clip(chosen, 0, 255))
        return red, green, blue

    def across(self, low: int, high: int) -> NDArray[np.float64]:
        """Between `low` and `high` columns, unevenly spaced over the canvas."""
        count = int(self.rng.integers(low, high + 1))
        return np.asarray((np.arange(count) + self.rng.uniform(0.1, 0.9, count)) / count * self.width)


def park(c: Canvas) -> None:
    c.fade(0, c.horizon, c.pick((120, 185, 240), (170, 205, 235)), (225, 238, 245))
    for x in c.across(2, 4):
        for dx, size in ((-0.3, 0.2), (0, 0.3), (0.3, 0.22)):
            c.blob(x + dx * c.metre, 0.45 * c.horizon, size * c.metre, 0.6 * size * c.metre, (250, 252, 255))
    for x in c.across(4, 6):
        c.blob(x, c.horizon, 1.4 * c.metre, 0.45 * c.metre, c.pick((110, 165, 95), (95, 150, 100)))
    c.fade(c.horizon, c.height, c.pick((125, 185, 95), (150, 190, 90)), c.pick((85, 150, 65), (105, 150, 60)))
    c.grain(9)
    for x in c.across(3, 6):
        base = c.horizon + c.rng.uniform(0.05, 0.4) * c.metre
        size, leaf = c.rng.uniform(0.4, 0.65) * c.metre, c.pick((60, 125, 60), (85, 140, 50), (190, 130, 50))
        c.box(x - 0.06 * c.metre, base, 0.12 * c.metre, 1.1 * c.metre, (105, 75, 50))
        for dx, dy in ((-0.5, 0), (0.5, 0.05), (0, 0.55), (0, 0)):
            c.blob(x + dx * size, base - 1.2 * c.metre - dy * size, 0.75 * size, 0.65 * size, leaf)


def beach(c: Canvas) -> None:
    c.fade(0, c.horizon, c.pick((90, 170, 235), (245, 165, 110)), (250, 225, 190))
    c.blob(c.rng.uniform(0.2, 0.8) * c.width, 0.6 * c.horizon, 0.22 * c.metre, 0.22 * c.metre, (255, 245, 190))
    shore = c.horizon + round(0.35 * c.metre)
    c.fade(c.horizon - 2, shore, c.pick((30, 110, 170), (50, 140, 160)), (110, 195, 205))
    c.fade(shore, c.height, c.pick((238, 215, 160), (228, 200, 150)), c.pick((215, 185, 125), (222, 190, 140)))
    c.grain(8)
    c.line((0, shore), (c.width, shore), (245, 250, 250), 0.04 * c.metre)
    for x in c.across(1, 3):
        base, shade = shore + 0.25 * c.metre, c.pick((235, 80, 80), (70, 130, 210), (250, 190, 60))
        c.line((x, base), (x, base - 1.3 * c.metre), (235, 235, 230), 0.05 * c.metre)
        top = base - 1.35 * c.metre
        for piece in range(6):
            left, right = (x + (piece + e) / 6 * 1.3 * c.metre - 0.65 * c.metre for e in (0, 1))
            colour = shade if piece % 2 else (250, 248, 240)
            c.shape([(x, top - 0.3 * c.metre), (left, top + 0.1 * c.metre), (right, top + 0.1 * c.metre)], colour)


def room(c: Canvas) -> None:
    wall = c.pick((225, 200, 170), (170, 200, 205), (215, 180, 190), (190, 205, 165))
    floor = c.horizon + round(0.3 * c.metre)
    c.fade(0, floor, wall, _darker(wall, 0.88))
    c.fade(floor, c.height, c.pick((165, 120, 80), (140, 105, 85)), c.pick((135, 95, 60), (150, 110, 70)))
    c.boards((115, 80, 50))
    c.box(0, floor + 0.05 * c.metre, c.width, 0.1 * c.metre, (245, 240, 232))
    for index, x in enumerate(c.across(3, 5)):
        top = c.horizon - c.rng.uniform(0.2, 0.4) * c.metre
        if index % 2 == 0:
            c.box(x - 0.5 * c.metre, top, 1.0 * c.metre, 1.0 * c.metre, (250, 248, 240))
            c.box(x - 0.44 * c.metre, top - 0.06 * c.metre, 0.88 * c.metre, 0.88 * c.metre, (165, 210, 240))
            c.line((x, top), (x, top - c.metre), (250, 248, 240), 0.06 * c.metre)
        else:
            c.box(x - 0.3 * c.metre, top, 0.6 * c.metre, 0.45 * c.metre, (90, 65, 45))
            c.box(x - 0.25 * c.metre, top - 0.05 * c.metre, 0.5 * c.metre, 0.35 * c.metre, c.pick((220, 120, 90)))
    x, sofa = c.rng.uniform(0.1, 0.8) * c.width, c.pick((90, 120, 90), (150, 75, 70), (80, 95, 140))
    c.box(x, floor + 0.25 * c.metre, 1.7 * c.metre, 0.75 * c.metre, _darker(sofa, 0.8))
    c.box(x - 0.1 * c.metre, floor + 0.3 * c.metre, 1.9 * c.metre, 0.4 * c.metre, sofa)


def gym(c: Canvas) -> None:
    wall = c.pick((205, 210, 200), (185, 200, 215), (225, 215, 180))
    floor = c.horizon + round(0.2 * c.metre)
    c.fade(0, floor, wall, _darker(wall, 0.9))
    c.fade(floor, c.height, c.pick((215, 165, 105), (120, 160, 150)), c.pick((195, 140, 80), (95, 140, 130)))
    for x in c.across(2, 4):
        for rung in range(9):
            level = floor - 0.1 * c.metre - rung * 0.17 * c.metre
            c.line((x, level), (x + 0.9 * c.metre, level), (170, 115, 65), 0.05 * c.metre)
        for side in (0, 0.9):
            foot = (x + side * c.metre, floor)
            c.line(foot, (foot[0], floor - 1.65 * c.metre), (140, 95, 55), 0.07 * c.metre)
    stripe = c.pick((220, 60, 60), (60, 90, 190), (250, 250, 250))
    c.line((0, floor + 0.5 * c.metre), (c.width, floor + 0.5 * c.metre), stripe, 0.05 * c.metre)
    centre = c.rng.uniform(0.3, 0.7) * c.width
    ring = (round(centre), c.feet), (round(1.6 * c.metre), round(0.38 * c.metre))
    cv2.ellipse(c.pixels, *ring, 0, 0, 360, stripe, max(round(0.05 * c.metre), 1), cv2.LINE_AA)


def street(c: Canvas) -> None:
    c.fade(0, c.horizon, c.pick((150, 190, 225), (205, 205, 215), (240, 190, 150)), (235, 235, 230))
    floor, x = c.horizon + round(0.35 * c.metre), 0.0
    while x < c.width:
        wide, high = c.rng.uniform(1.2, 2.2) * c.metre, c.rng.uniform(1.5, 2.8) * c.metre
        c.box(x, floor, wide, high, c.pick((200, 110, 85), (225, 195, 145), (150, 165, 185), (190, 170, 160)))
        glass = c.pick((80, 95, 120), (250, 225, 150))
        for row in np.arange(0.75 * c.metre, high - 0.4 * c.metre, 0.75 * c.metre):
            for column in np.arange(0.2 * c.metre, wide - 0.3 * c.metre, 0.55 * c.metre):
                c.box(x + column, floor - row, 0.3 * c.metre, 0.42 * c.metre, glass)
        c.box(x + 0.4 * wide, floor, 0.35 * c.metre, 0.6 * c.metre, c.pick((90, 60, 50), (50, 90, 80)))
        x += wide + 2
    c.fade(floor, c.height, (185, 182, 178), (160, 158, 156))
    c.boards((145, 143, 140), 9)
    for level in (0.3, 0.7, 1.25):
        c.line((0, floor + level * c.metre), (c.width, floor + level * c.metre), (145, 143, 140), 1)
    c.grain(5)


def stage(c: Canvas) -> None:
    cloth, floor = c.pick((130, 25, 40), (45, 35, 95), (25, 75, 70)), c.horizon + round(0.3 * c.metre)
    folds = 0.75 + 0.25 * np.sin(np.arange(c.width) / (0.07 * c.metre) + c.rng.uniform(0, 6))
    c.pixels[:floor] = (folds[None, :, None] * np.asarray(cloth)).astype(np.uint8)
    c.fade(floor, c.height, (75, 55, 50), (120, 90, 75))
    c.boards((60, 45, 40))
    beams = np.zeros_like(c.pixels)
    for x in c.across(2, 4):
        glow, foot = c.pick((255, 230, 160), (170, 200, 255), (255, 170, 200)), x + c.rng.uniform(-1, 1) * c.metre
        corners = [(x, 0), (foot - 0.8 * c.metre, c.feet), (foot + 0.8 * c.metre, c.feet)]
        cv2.fillPoly(beams, [np.round(corners).astype(np.int32)], glow, cv2.LINE_AA)
        pool = (round(foot), c.feet), (round(0.8 * c.metre), round(0.22 * c.metre))
        cv2.ellipse(beams, *pool, 0, 0, 360, glow, -1, cv2.LINE_AA)
    beams = cv2.GaussianBlur(beams, (0, 0), 0.06 * c.metre)
    c.pixels[:] = cv2.addWeighted(c.pixels, 1.0, beams, 0.3, 0)


def snow(c: Canvas) -> None:
    c.fade(0, c.horizon, c.pick((130, 160, 205), (190, 200, 215)), (230, 235, 242))
    for x in c.across(3, 5):
        high, half = c.rng.uniform(0.6, 1.1) * c.metre, c.rng.uniform(0.8, 1.5) * c.metre
        rock, top = c.pick((120, 130, 155), (140, 145, 165)), c.horizon - high
        c.shape([(x - half, c.horizon), (x, top), (x + half, c.horizon)], rock)
        cap = [(x - 0.35 * half, top + 0.35 * high), (x, top), (x + 0.35 * half, top + 0.35 * high)]
        c.shape([*cap, (x, top + 0.25 * high)], (250, 252, 255))
    c.fade(c.horizon, c.height, (225, 232, 242), (245, 248, 252))
    c.grain(5)
    for x in c.across(3, 6):
        base, size = c.horizon + c.rng.uniform(0.05, 0.5) * c.metre, c.rng.uniform(0.5, 0.8) * c.metre
        for layer in range(3):
            low, half = base - 0.15 * size - layer * 0.45 * size, size * (0.55 - 0.13 * layer)
            c.shape([(x - half, low), (x, low - 0.8 * size), (x + half, low)], c.pick((50, 95, 80), (60, 105, 85)))


def playground(c: Canvas) -> None:
    c.fade(0, c.horizon, c.pick((105, 190, 230), (160, 215, 235)), (240, 245, 235))
    for x in c.across(8, 12):
        c.blob(x, c.horizon, 0.7 * c.metre, 0.4 * c.metre, c.pick((80, 145, 85), (100, 160, 80)))
    c.fade(c.horizon, c.height, c.pick((215, 140, 100), (200, 180, 130)), c.pick((195, 115, 85), (180, 160, 110)))
    c.grain(4)
    for index, x in enumerate(c.across(2, 4)):
        base, bar = c.horizon + 0.35 * c.metre, c.pick((230, 60, 60), (250, 195, 40), (60, 110, 210))
        if index % 2 == 0:  # swings
            for side in (-0.8, 0.8):
                for leg in (-0.25, 0.25):
                    foot, top = (x + (side + leg) * c.metre, base), (x + side * c.metre, base - 1.6 * c.metre)
                    c.line(foot, top, bar, 0.06 * c.metre)
            c.line((x - 0.8 * c.metre, base - 1.6 * c.metre), (x + 0.8 * c.metre, base - 1.6 * c.metre), bar, 3)
            for rope in (-0.2, 0.2):
                c.line((x + rope * c.metre, base - 1.6 * c.metre), (x + rope * c.metre, base - 0.4 * c.metre), bar, 1)
            c.box(x - 0.25 * c.metre, base - 0.35 * c.metre, 0.5 * c.metre, 0.07 * c.metre, (90, 60, 40))
        else:  # a slide
            c.line((x, base), (x, base - 1.2 * c.metre), (120, 120, 130), 0.07 * c.metre)
            slope = [(x, base - 1.2 * c.metre), (x + 1.3 * c.metre, base), (x + 1.6 * c.metre, base)]
            c.shape([*slope, (x + 0.2 * c.metre, base - 1.2 * c.metre)], bar)


PAINTERS: dict[str, Callable[[Canvas], None]] = {
    "beach": beach, "gym": gym, "park": park, "playground": playground,
    "room": room, "snow": snow, "stage": stage, "street": street,
}  # fmt: skip


def paint(scene: Scene, view: View) -> Picture:
    """The canvas of a scene: uint8 (H', W', 3), MARGIN larger than the view's picture on every side.

    It is a little out of focus and hazy, as behind an actor, so that people stand out even at 64 pixels.
    """
    rng = np.random.default_rng([scene.seed, sorted(PAINTERS).index(scene.kind), 11])
    canvas = Canvas(view, rng)
    PAINTERS[scene.kind](canvas)
    soft = cv2.GaussianBlur(canvas.pixels, (0, 0), 0.025 * canvas.metre)
    return np.asarray(cv2.addWeighted(soft, 0.62, np.full_like(soft, 205), 0.38, 0))


def light_of(scene: Scene) -> Light:
    """The light of a scene: indoors from above and soft, outdoors from anywhere."""
    rng = np.random.default_rng([scene.seed, sorted(PAINTERS).index(scene.kind), 12])
    indoors = scene.kind in ("gym", "room", "stage")
    angle = rng.uniform(0, math.pi)
    reach = rng.uniform(0.05, 0.25) if indoors else rng.uniform(0.3, 0.9)
    gain = rng.uniform(0.72, 1.08)
    warmth = rng.uniform(-0.1, 0.1)
    tint = (gain * (1 + warmth), gain, gain * (1 - warmth))
    return Light((reach * math.cos(angle), -0.4 * reach * math.sin(angle)), 0.35 if indoors else 0.42, tint)


def _darker(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(channel * factor) for channel in colour)
    return red, green, blue
