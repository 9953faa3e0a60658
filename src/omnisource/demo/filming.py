"""From a shot (a place, people, a camera) to frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from omnisource.demo import parts as build
from omnisource.demo.actions import ACTIONS, PASTIMES, Style
from omnisource.demo.parts import Colour, Look, Part
from omnisource.demo.poses import Array, Body, Joint, joints
from omnisource.demo.scenes import MARGIN, Light, Picture, Scene, light_of, paint
from omnisource.demo.view import CameraMove, View

Finish = Literal["", "sepia", "grey", "sketch", "poster", "night", "vivid"]
Thing = Literal["chair", "drum", "ball"]
FINISHES: tuple[Finish, ...] = ("sepia", "grey", "sketch", "poster", "night", "vivid")
THINGS: tuple[Thing, ...] = ("chair", "drum", "ball")

_SUPERSAMPLE = 2
_FIXED = 4  # OpenCV draws at sub-pixels given as integers with so many fractional bits
_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 12, endpoint=False)),
                    np.sin(np.linspace(0, 2 * np.pi, 12, endpoint=False))], axis=-1)  # fmt: skip


@dataclass(frozen=True)
class Actor:
    """One person and what it does; `yaw` turns it to the viewer's right, `spot` is (x, z) on the ground in metres."""

    action: str
    style: Style
    body: Body
    look: Look
    yaw: float
    spot: tuple[float, float]
    thing_colour: Colour
    wobble: float  # degrees by which no two people move alike


@dataclass(frozen=True)
class Prop:
    """A thing that stands about: a chair, a drum or a ball that nobody uses."""

    thing: Thing
    spot: tuple[float, float]
    colour: Colour
    yaw: float


@dataclass(frozen=True)
class Shot:
    """Everything that decides the pixels of one continuous take."""

    scene: Scene
    actors: tuple[Actor, ...]
    props: tuple[Prop, ...]
    view: dict[str, float]  # what differs from View's defaults
    move: CameraMove
    outline: bool
    finish: Finish
    noise: float  # standard deviation in grey levels
    seed: int


def film(shot: Shot, width: int, height: int, times: Array, fps: float) -> Iterator[Picture]:
    """Yields the frames uint8 (height, width, 3) of `shot` at `times` (T,) seconds, `fps` apart."""
    view = View(width * _SUPERSAMPLE, height * _SUPERSAMPLE, **shot.view)
    canvas, light = paint(shot.scene, view), light_of(shot.scene)
    moves = shot.move.matrices(view, len(times), fps)
    parts: list[Part] = []
    for actor in shot.actors:
        parts.extend(_performed(actor, times, fps, shot.seed))
    for prop in shot.props:
        parts.extend(_standing(prop, len(times)))
    drawing = _project(parts, view, moves, light, shot.outline)
    finish = _Finisher(shot, light, width, height)
    offset = np.array([[1, 0, -MARGIN * view.width], [0, 1, -MARGIN * view.height], [0, 0, 1]])
    for index in range(len(times)):
        matrix = (np.vstack([moves[index], [0, 0, 1]]) @ offset)[:2]
        frame = cv2.warpAffine(canvas, matrix, (view.width, view.height), borderMode=cv2.BORDER_REFLECT)
        drawing.draw(frame, index, light)
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        yield finish(small, index)


def _performed(actor: Actor, times: Array, fps: float, seed: int) -> list[Part]:
    """The parts of an actor and of what it handles."""
    motion = (ACTIONS | PASTIMES)[actor.action](times, actor.style)
    rng = np.random.default_rng([seed, 5])
    poses = motion.poses.copy()
    angles = slice(9, None)  # limbs only: the whole body's course is the action's own
    hertz, phase = rng.uniform(0.2, 0.9, poses[:, angles].shape[1]), rng.uniform(0, 6.3, poses[:, angles].shape[1])
    poses[:, angles] += actor.wobble * np.sin(2 * np.pi * hertz * times[:, None] + phase)
    spot = np.array([actor.spot[0], 0.0, actor.spot[1]])
    at = build.placed(joints(poses, actor.body, planted=motion.planted), actor.yaw, spot)
    parts = build.person(at, actor.body, actor.look)
    if motion.thing == "chair":
        parts.extend(build.chair(actor.body, actor.thing_colour, actor.yaw, spot, len(times)))
    elif motion.thing == "drum":
        parts.extend(build.drum(actor.body, actor.thing_colour, actor.yaw, spot, len(times)))
        parts.extend(build.sticks(at))
    elif motion.thing == "ball" and motion.held is not None:
        way = build.placed(np.array([0.0, 1.6, 5.0]), actor.yaw, np.zeros(3))
        hand = at[:, Joint.L_HAND if motion.throwing_left else Joint.R_HAND]
        seen = np.maximum.accumulate(motion.held)
        parts.extend(build.ball(build.thrown(hand, motion.held, way, fps), 0.15, actor.thing_colour, seen))
    return parts


def _standing(prop: Prop, frames: int) -> list[Part]:
    spot = np.array([prop.spot[0], 0.0, prop.spot[1]])
    if prop.thing == "ball":
        centre = spot + np.array([0, 0.15, 0])
        return build.ball(np.repeat(centre[None], frames, axis=0), 0.15, prop.colour)
    maker = build.chair if prop.thing == "chair" else build.drum
    return maker(Body(), prop.colour, prop.yaw, spot, frames)


@dataclass(frozen=True)
class _Drawing:
    """Parts in pixels: per part its points (T, n, 2) for outline, body, highlight and shadow, in drawing order."""

    parts: list[Part]
    rims: list[NDArray[np.int32]]
    bodies: list[NDArray[np.int32]]
    lights: list[NDArray[np.int32]]
    shadows: list[NDArray[np.int32]]
    order: NDArray[np.int64]  # (T, parts), farthest first

    def draw(self, frame: Picture, index: int, light: Light) -> None:
        mask = np.zeros(frame.shape[:2], np.uint8)
        for part, shadow in zip(self.parts, self.shadows, strict=True):
            if part.outlined and (part.seen is None or part.seen[index]):
                cv2.fillConvexPoly(mask, cv2.convexHull(shadow[index]), 255, cv2.LINE_8, _FIXED)
        dark = cv2.convertScaleAbs(frame, alpha=1 - light.depth)
        cv2.copyTo(dark, mask, frame)
        for which in self.order[index]:
            part = self.parts[which]
            if part.seen is not None and not part.seen[index]:
                continue
            red, green, blue = part.colour
            if self.rims and part.outlined:
                rim = (red // 3, green // 3, blue // 3)
                cv2.fillConvexPoly(frame, cv2.convexHull(self.rims[which][index]), rim, cv2.LINE_AA, _FIXED)
            cv2.fillConvexPoly(frame, cv2.convexHull(self.bodies[which][index]), part.colour, cv2.LINE_AA, _FIXED)
            if part.outlined:
                lit = (min(255, red + 26), min(255, green + 26), min(255, blue + 24))
                cv2.fillConvexPoly(frame, cv2.convexHull(self.lights[which][index]), lit, cv2.LINE_AA, _FIXED)


def _project(parts: list[Part], view: View, moves: Array, light: Light, outline: bool) -> _Drawing:
    """Where the parts of all frames fall in the picture."""
    rims, bodies, lights, shadows, depths = [], [], [], [], []
    zoom = np.linalg.norm(moves[:, 0, :2], axis=-1)[:, None]
    rim = 0.011 * view.height
    towards = np.array([-0.32 if light.shadow[0] > 0 else 0.32, -0.32])

    def moved(pixels: Array) -> Array:
        return np.asarray(np.einsum("tij,tcj->tci", moves[:, :, :2], pixels) + moves[:, None, :, 2])

    def points(centres: Array, radii: Array) -> NDArray[np.int32]:
        around = centres[:, :, None] + radii[:, :, None, None] * _CIRCLE
        flat = around.reshape(len(centres), -1, 2)
        return np.asarray(np.round(np.clip(flat, -4000, 4000) * (1 << _FIXED)), np.int32)

    for part in parts:
        pixels, scale = view.project(part.centres)
        centres, radii = moved(pixels), scale * zoom * part.radii
        if outline:
            rims.append(points(centres, radii + rim * zoom))
        bodies.append(points(centres, radii))
        lights.append(points(centres + radii[:, :, None] * towards, 0.42 * radii))
        height = part.centres[:, :, 1]
        fallen = np.stack([part.centres[:, :, 0] + light.shadow[0] * height, np.zeros_like(height),
                           part.centres[:, :, 2] + light.shadow[1] * height], axis=-1)  # fmt: skip
        ground, _ = view.project(fallen)
        shadows.append(points(moved(ground), radii * 0.8))
        depths.append(part.centres[:, :, 2].mean(axis=1) + part.nearer)
    order = np.argsort(np.stack(depths, axis=1), axis=1, kind="stable") if parts else np.zeros((len(moves), 0), int)
    return _Drawing(parts, rims, bodies, lights, shadows, order)


class _Finisher:
    """Colour of the light, sensor noise and the look of other media."""

    def __init__(self, shot: Shot, light: Light, width: int, height: int) -> None:
        levels = np.arange(256)[:, None]
        self.table = np.clip(levels * np.array(light.tint), 0, 255).astype(np.uint8)[:, None]
        rng = np.random.default_rng([shot.seed, 6])
        self.noise = rng.normal(0, shot.noise, (height + 32, width + 32, 1)).repeat(3, axis=2).astype(np.int16)
        self.corners = rng.integers(0, 32, (512, 2))
        self.finish, self.size = shot.finish, (height, width)

    def __call__(self, frame: Picture, index: int) -> Picture:
        frame = np.asarray(cv2.LUT(frame, self.table))
        if self.finish:
            frame = finished(frame, self.finish)
        y, x = self.corners[index % len(self.corners)]
        noise = self.noise[y : y + self.size[0], x : x + self.size[1]]
        return np.asarray(np.clip(frame + noise, 0, 255), np.uint8)


def finished(frame: Picture, finish: Finish) -> Picture:
    """The frame (H, W, 3) as another medium shows it."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if finish == "grey":
        return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB))
    if finish == "sepia":
        return np.asarray(np.clip(grey[:, :, None] * np.array([1.08, 0.92, 0.7]), 0, 255), np.uint8)
    if finish == "sketch":
        inverse = cv2.GaussianBlur(255 - grey, (0, 0), 3)
        paper = cv2.divide(grey, 255 - inverse, scale=250)
        return np.asarray(cv2.cvtColor(paper, cv2.COLOR_GRAY2RGB))
    if finish == "poster":
        return np.asarray((frame // 64) * 64 + 32, np.uint8)
    if finish == "night":
        return np.asarray(np.clip(grey[:, :, None] * np.array([0.25, 0.8, 0.35]), 0, 255), np.uint8)
    if finish == "vivid":
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        hsv[:, :, 1] = cv2.convertScaleAbs(hsv[:, :, 1], alpha=1.6)
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    return frame
