"""Who does what, where and how it is filmed: random choices turned into shots."""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from omnisource.demo.actions import ACTIONS, PASTIMES, Style
from omnisource.demo.filming import FINISHES, THINGS, Actor, Finish, Prop, Shot
from omnisource.demo.parts import Colour, Look
from omnisource.demo.poses import Array, Body, Dof
from omnisource.demo.scenes import PAINTERS, Scene
from omnisource.demo.view import CameraMove

Rng = np.random.Generator
T = TypeVar("T")

YAWS: dict[str, tuple[float, float]] = {
    "cartwheeling": (0, 30), "drumming": (0, 45), "jumping jacks": (0, 35), "sitting down": (30, 70),
    "squatting": (15, 70), "standing up": (30, 70), "throwing ball": (35, 75), "waving": (0, 40),
}  # fmt: skip
"""Degrees by which people turn from the camera, to either side, when they do it."""

_SKINS: tuple[Colour, ...] = ((245, 205, 170), (232, 184, 145), (200, 150, 110), (150, 105, 75), (105, 72, 52))
_HAIRS: tuple[Colour, ...] = ((45, 32, 28), (95, 62, 38), (190, 145, 70), (150, 75, 40), (130, 130, 135))
_CLOTHES: tuple[Colour, ...] = (
    (215, 60, 55), (240, 150, 50), (245, 210, 70), (75, 165, 90), (60, 150, 165), (60, 95, 190), (125, 75, 165),
    (225, 115, 160), (240, 238, 232), (90, 95, 105), (45, 48, 60), (135, 90, 60),
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    body: Body
    look: Look
    style: Style
    wobble: float


@dataclass(frozen=True)
class Session:
    """A camera set up somewhere in front of somebody; many clips can come from one session."""

    scene: Scene
    person: Person
    view: dict[str, float]
    props: tuple[Prop, ...]
    side: int  # which way the person tends to turn
    thing_colour: Colour
    outline: bool = True
    finish: Finish = ""


def any_person(rng: Rng) -> Person:
    """Somebody: child or adult, slim or stout, and a way of moving."""
    tall, girth = rng.uniform(0.85, 1.1), rng.uniform(0.95, 1.4)
    leggy = rng.uniform(0.92, 1.08)
    body = Body(
        torso=0.48 * tall, shoulder=0.19 * tall * girth**0.4, hip=0.09 * tall * girth**0.5,
        upper_arm=0.27 * tall, forearm=0.25 * tall, thigh=0.41 * tall * leggy, shin=0.41 * tall * leggy,
        foot=0.15 * tall, head=0.15 * rng.uniform(0.92, 1.12), girth=girth,
    )  # fmt: skip
    top, bottom = (_CLOTHES[index] for index in rng.choice(len(_CLOTHES), 2, replace=False))
    look = Look(
        skin=_pick(rng, _SKINS), hair=_pick(rng, _HAIRS), top=top, bottom=bottom, shoes=_pick(rng, _CLOTHES[-4:]),
        hair_style=_pick(rng, ("short", "short", "long", "bun", "bald")),
        hat=_pick(rng, ("", "", "", "cap", "beanie")), hat_colour=_pick(rng, _CLOTHES),
        long_sleeves=bool(rng.random() < 0.5), legs=_pick(rng, ("long", "long", "short", "skirt")),
    )  # fmt: skip
    style = Style(
        tempo=rng.uniform(0.8, 1.25), swing=rng.uniform(0.85, 1.08), left_handed=bool(rng.random() < 0.3),
        variant=rng.uniform(),
    )  # fmt: skip
    return Person(body, look, style, wobble=rng.uniform(1, 4))


def target_session(rng: Rng, scene: Scene) -> Session:
    """A session of the target dataset: somebody films with care."""
    view = {"horizon": rng.uniform(0.36, 0.42), "tall": rng.uniform(0.7, 0.78), "distance": rng.uniform(4, 7)}
    return Session(
        scene, any_person(rng), view, _some_props(rng, 0.4), int(rng.choice([-1, 1])), _pick(rng, _CLOTHES[:8])
    )  # fmt: skip


def web_session(rng: Rng) -> Session:
    """A session of the web: anybody, anywhere, anyhow."""
    scene = Scene(_pick(rng, tuple(sorted(PAINTERS))), int(rng.integers(1_000, 1_000_000)))
    view = {"horizon": rng.uniform(0.34, 0.44), "tall": rng.uniform(0.64, 0.8), "distance": rng.uniform(3.5, 8)}
    finish: Finish = ""
    if rng.random() < 0.12:
        finish = _pick(rng, FINISHES)
    return Session(
        scene, any_person(rng), view, _some_props(rng, 0.4), int(rng.choice([-1, 1])), _pick(rng, _CLOTHES[:8]),
        outline=bool(rng.random() < 0.9), finish=finish,
    )  # fmt: skip


def take(rng: Rng, session: Session, action: str, *, web: bool) -> Shot:
    """One take of the session's person doing `action`: a class, or a pastime."""
    person = session.person
    low, high = YAWS.get(action, (0, 50))
    side = session.side if rng.random() < 0.7 else -session.side
    style = replace(person.style, phase=rng.uniform(), tempo=person.style.tempo * rng.uniform(0.92, 1.08))
    if rng.random() < 0.3:
        style = replace(style, variant=rng.uniform())
    actor = Actor(
        action, style, person.body, person.look, yaw=side * rng.uniform(low, high),
        spot=(rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)), thing_colour=session.thing_colour,
        wobble=person.wobble,
    )  # fmt: skip
    actors = (actor, *(_passer_by(rng) for _ in range(int(rng.random() < (0.2 if web else 0.1)))))
    roughness = 1.5 if web else 1.0
    move = CameraMove(
        pan=(roughness * rng.normal(0, 0.03), roughness * rng.normal(0, 0.01)),
        zoom=(1.0, 1 + roughness * rng.normal(0, 0.04)),
        shake=roughness * rng.uniform(0, 0.7), seed=int(rng.integers(1 << 30)),
    )  # fmt: skip
    return Shot(
        session.scene, actors, session.props, session.view, move, outline=session.outline,
        finish=session.finish, noise=rng.uniform(1, 5 if web else 3), seed=int(rng.integers(1 << 30)),
    )  # fmt: skip


def telling_time(rng: Rng, shot: Shot) -> float:
    """A moment in seconds at which a photographer presses the button: far from plain standing."""
    actor = shot.actors[0]
    times = np.linspace(0.1, 2.0, 20)
    poses: Array = (ACTIONS | PASTIMES)[actor.action](times, actor.style).poses
    limbs = slice(Dof.L_ARM_OUT, None)
    away = np.abs(poses[:, limbs] - PASTIMES["idling"](times, actor.style).poses[:, limbs]).sum(axis=1)
    return float(times[rng.choice(np.argsort(away)[8:])])


def empty_shot(rng: Rng) -> Shot:
    """A place without people, maybe with things: nothing happens."""
    session = web_session(rng)
    move = CameraMove(pan=(rng.normal(0, 0.15), 0), zoom=(1, 1 + abs(rng.normal(0, 0.1))), shake=rng.uniform(0, 1))
    seed = int(rng.integers(1 << 30))
    return Shot(
        session.scene, (), _some_props(rng, 1.0), session.view, move, session.outline, session.finish, 2.0, seed
    )  # fmt: skip


def _passer_by(rng: Rng) -> Actor:
    somebody = any_person(rng)
    action = _pick(rng, ("idling", "phoning", "walking"))
    spot = (float(rng.choice([-1, 1])) * rng.uniform(1.1, 1.8), rng.uniform(-3.0, -1.5))
    style = replace(somebody.style, phase=rng.uniform())
    yaw = rng.uniform(-50, 50)
    return Actor(action, style, somebody.body, somebody.look, yaw, spot, _pick(rng, _CLOTHES), somebody.wobble)


def _some_props(rng: Rng, chance: float) -> tuple[Prop, ...]:
    """Things that stand about, so that a chair in the picture proves nothing."""
    props = []
    for side in (-1, 1):
        if rng.random() < chance / 2:
            spot = (side * rng.uniform(0.9, 1.5), rng.uniform(-1.6, -0.2))
            props.append(Prop(_pick(rng, THINGS), spot, _pick(rng, _CLOTHES[:8]), rng.uniform(-60, 60)))
    return tuple(props)


def _pick(rng: Rng, choices: tuple[T, ...]) -> T:
    return choices[int(rng.integers(len(choices)))]
