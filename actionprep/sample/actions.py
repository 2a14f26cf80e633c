"""Actions of the sample study: scripts of recordings, and postures over time.

Every action moves the full body along one horizontal line. A camera that looks along that line hardly sees the motion. A
camera at its side cannot distinguish it from its mirror image in depth. Several cameras can. The arms carry no information.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from actionprep.sample.body import BodyShape, Posture


@dataclass(frozen=True)
class Action:
    """A kind of motion along a line.

    "sway" rocks back and forth with the feet in place, "hop" jumps on both feet. The direction is in degrees,
    counterclockwise from straight ahead.
    """

    label: str
    kind: Literal["sway", "hop"]
    direction: float

    @property
    def line(self) -> np.ndarray:
        """Unit vector (2,) of the direction: forward and left."""
        return np.array([np.cos(np.radians(self.direction)), np.sin(np.radians(self.direction))])


ACTIONS = (
    Action("sway_ahead", "sway", 0.0),
    Action("sway_left", "sway", 45.0),
    Action("sway_across", "sway", 90.0),
    Action("sway_right", "sway", 135.0),
    Action("hop_ahead", "hop", 0.0),
    Action("hop_left", "hop", 90.0),
    Action("hop_back", "hop", 180.0),
    Action("hop_right", "hop", 270.0),
)


@dataclass(frozen=True)
class Deed:
    """One performed action; times in seconds on the recording's clock, lengths in meters of an average body.

    way:   half the distance that the hips sway, or the total distance of all hops.
    rate:  sways per second; phase in radians.
    hops:  number of hops; height: height of a hop; crouch: how deep the knees bend before it.
    """

    action: Action
    onset: float
    offset: float
    way: float
    rate: float
    phase: float
    hops: int
    height: float
    crouch: float


@dataclass(frozen=True)
class ArmHabit:
    """How one arm is held during all actions.

    hand: (ahead, outward, below the shoulder) of the wrist in meters of an average body; wobble: its (3,) amplitudes,
    meters, at `rate` per second from `phase`.
    """

    hand: tuple[float, float, float]
    wobble: tuple[float, float, float]
    rate: float
    phase: float


_ARM_HABITS = {
    "hanging": (0.05, 0.11, 0.52),
    "akimbo": (0.06, 0.04, 0.42),
    "before the belly": (0.30, -0.08, 0.34),
    "before the chest": (0.28, -0.02, 0.14),
    "raised": (0.16, 0.16, -0.34),
    "spread": (0.10, 0.46, 0.04),
}


@dataclass(frozen=True)
class Performance:
    """The script of one recording.

    start (2,) meters and heading in radians: initial position and direction of the subject; sway: phases (4,) of the
    motions that never stop; stance: half the distance of the feet; arms: right and left.
    """

    recording: str
    subject: int
    session: str
    duration: float
    start: tuple[float, float]
    heading: float
    stance: float
    sway: tuple[float, float, float, float]
    arms: tuple[ArmHabit, ArmHabit]
    deeds: tuple[Deed, ...]


def script_short(
    recording: str, action: Action, *, subject: int, session: str, rng: np.random.Generator
) -> Performance:
    """One action between two short rests, slightly over three seconds, so that three windows of one second fit."""
    onset = rng.uniform(0.2, 0.4)
    offset = rng.uniform(2.75, 3.0)
    return _script(recording, [(action, onset, offset)], max(3.25, offset + 0.2), subject, session, rng)


def script_long(
    recording: str, actions: tuple[Action, ...], *, subject: int, session: str, rng: np.random.Generator
) -> Performance:
    """Several actions in random order, with rests between."""
    plan = []
    now = 0.5
    for index in rng.permutation(len(actions)):
        offset = now + rng.uniform(1.2, 1.6)
        plan.append((actions[index], now, offset))
        now = offset + rng.uniform(0.4, 0.7)
    return _script(recording, plan, now, subject, session, rng)


def _script(
    recording: str,
    plan: list[tuple[Action, float, float]],
    duration: float,
    subject: int,
    session: str,
    rng: np.random.Generator,
) -> Performance:
    deeds = tuple(_deed(action, round(onset, 3), round(offset, 3), rng) for action, onset, offset in plan)
    # The hops of a recording are centered on the stage, so that the subject stays in view of all cameras.
    hopped = sum((deed.way * deed.action.line for deed in deeds if deed.action.kind == "hop"), np.zeros(2))
    # Times are full milliseconds, so that tables contain them exactly.
    return Performance(
        recording=recording,
        subject=subject,
        session=session,
        duration=round(duration, 3),
        start=(rng.uniform(-0.15, 0.15) - hopped[0] / 2, rng.uniform(-0.15, 0.15) - hopped[1] / 2),
        heading=np.radians(rng.uniform(-9.0, 9.0)),
        stance=rng.uniform(0.09, 0.14),
        sway=tuple(rng.uniform(0, 2 * np.pi, 4)),
        arms=(_arm(rng), _arm(rng)),
        deeds=deeds,
    )


def _arm(rng: np.random.Generator) -> ArmHabit:
    habits = list(_ARM_HABITS.values())
    ahead, outward, below = np.array(habits[rng.integers(len(habits))]) + rng.uniform(-0.04, 0.04, 3)
    return ArmHabit(
        hand=(ahead, outward, below),
        wobble=(rng.uniform(0.0, 0.03), rng.uniform(0.0, 0.03), rng.uniform(0.01, 0.06)),
        rate=rng.uniform(0.6, 1.8),
        phase=rng.uniform(0, 2 * np.pi),
    )


def _deed(action: Action, onset: float, offset: float, rng: np.random.Generator) -> Deed:
    return Deed(
        action=action,
        onset=onset,
        offset=offset,
        way=rng.uniform(0.11, 0.16) if action.kind == "sway" else rng.uniform(0.24, 0.32) * (offset - onset),
        rate=rng.uniform(0.9, 1.4),
        phase=rng.uniform(0, 2 * np.pi),
        hops=round((offset - onset) / rng.uniform(0.45, 0.65)),
        height=rng.uniform(0.05, 0.1),
        crouch=rng.uniform(0.03, 0.08),
    )


def perform(performance: Performance, shape: BodyShape, times: np.ndarray) -> Posture:
    """Compute the subject's posture at times (T,) in seconds on the recording's clock."""
    size = shape.scale
    num_times = len(times)
    a, b, c, d = performance.sway
    out = np.array([-1.0, 1.0])  # right before left

    # In the frame of the subject: x ahead, y to the left. `lean` is where the hips are beside the feet.
    ground = np.zeros((num_times, 2))
    lean = np.stack([0.010 * np.sin(2.3 * times + a), 0.012 * np.sin(1.7 * times + b)], axis=-1)
    aloft = np.zeros(num_times)
    dip = 0.012 * (1 + np.sin(1.5 * times + d))
    for deed in performance.deeds:
        line = deed.action.line
        if deed.action.kind == "sway":
            there = _fade(times, deed.onset, deed.offset, 0.2)
            stroke = np.sin(2 * np.pi * deed.rate * (times - deed.onset) + deed.phase)
            lean += (deed.way * size * there * stroke)[:, None] * line
            dip += 0.5 * deed.crouch * size * there
        else:
            beat = np.clip((times - deed.onset) / (deed.offset - deed.onset), 0.0, 1.0) * deed.hops
            nth = np.minimum(np.floor(beat), deed.hops - 1)
            flight = np.clip((beat - nth - 0.25) / 0.5, 0.0, 1.0)
            ground += ((nth + flight) * deed.way * size / deed.hops)[:, None] * line
            aloft += 4 * deed.height * size * flight * (1 - flight)
            dip += deed.crouch * size * np.sin(np.pi * (beat - nth)) ** 2 * np.abs(np.cos(np.pi * flight)) ** 2

    ankles = np.zeros((num_times, 2, 3))
    ankles[..., :2] = ground[:, None]
    ankles[..., 1] += out * performance.stance * size
    ankles[..., 2] = (shape.ankle_height + aloft)[:, None]
    pelvis = np.concatenate([ground + lean, np.zeros((num_times, 1))], axis=-1)
    pelvis[:, 2] = _hip_height(shape, pelvis, ankles) - dip
    tilt = lean / shape.hip_height

    wrists = np.empty((num_times, 2, 3))
    elbows = np.empty((num_times, 2, 3))
    for index, habit in enumerate(performance.arms):
        ahead, outward, below = habit.hand
        wave = np.sin(2 * np.pi * habit.rate * times[:, None] + habit.phase + np.array([0.0, 1.3, 2.9]))
        wrists[:, index] = size * (np.array([ahead, out[index] * outward, 0.465 - below]) + wave * habit.wobble)
        wrists[:, index, 1] += out[index] * shape.half_shoulders
        # The arms go with the trunk, which tilts about the ankles.
        wrists[:, index, :2] += tilt * wrists[:, index, 2:]
        elbows[:, index] = (-0.35, 0.55 * out[index], -0.8)
    wrists += pelvis[:, None]

    local = Posture(
        pelvis=pelvis,
        yaw=0.04 * np.sin(1.3 * times + d),
        pitch=0.05 + 0.02 * np.sin(1.9 * times + c) + tilt[:, 0],
        roll=0.015 * np.sin(1.7 * times + b) - tilt[:, 1],
        twist=np.zeros(num_times),
        look=np.stack([0.15 * np.sin(0.9 * times + a), 0.08 + 0.05 * np.sin(1.1 * times + d)], axis=-1),
        wrists=wrists,
        elbows=elbows,
        ankles=ankles,
        toes=np.broadcast_to(out * 0.12, (num_times, 2)),
    )
    return _place(local, performance.start, performance.heading)


def _fade(times: np.ndarray, onset: float, offset: float, ramp: float) -> np.ndarray:
    share = np.clip(np.minimum(times - onset, offset - times) / ramp, 0.0, 1.0)
    return np.asarray(share * share * (3 - 2 * share))


def _hip_height(shape: BodyShape, pelvis: np.ndarray, ankles: np.ndarray) -> np.ndarray:
    # As high above the feet as in the resting pose, but no higher than both legs reach.
    out = np.array([-1.0, 1.0])
    hips = np.repeat(pelvis[:, None, :2], 2, axis=1)
    hips[..., 1] += out * shape.half_hips
    apart = np.linalg.norm(ankles[..., :2] - hips, axis=-1)
    leg = 0.99 * (shape.thigh + shape.shin)
    reach = ankles[..., 2] + np.sqrt(np.maximum(leg**2 - apart**2, 0.04))
    lifted = ankles[..., 2].min(axis=1) - shape.ankle_height
    return np.asarray(np.minimum(shape.hip_height + lifted, reach.min(axis=1)))


def _place(local: Posture, start: tuple[float, float], heading: float) -> Posture:
    turn = np.array(
        [[np.cos(heading), -np.sin(heading), 0.0], [np.sin(heading), np.cos(heading), 0.0], [0.0, 0.0, 1.0]]
    )
    origin = np.array([start[0], start[1], 0.0])
    return Posture(
        pelvis=local.pelvis @ turn.T + origin,
        yaw=local.yaw + heading,
        pitch=local.pitch,
        roll=local.roll,
        twist=local.twist,
        look=local.look,
        wrists=local.wrists @ turn.T + origin,
        elbows=local.elbows @ turn.T,
        ankles=local.ankles @ turn.T + origin,
        toes=local.toes + heading,
    )
