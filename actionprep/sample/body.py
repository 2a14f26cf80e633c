"""The rendered body: a posed skeleton of given proportions, covered by ellipsoids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actionprep.datasets.poses.skeletons import skeleton

# Joints of the ground truth.
JOINTS = skeleton("body25").joints

SIDES = ("right", "left")

PARTS = (
    "pelvis", "belly", "chest", "neck", "head", "hair", "nose",
    *(
        f"{side}_{part}"
        for side in SIDES
        for part in ("shoulder", "upper_arm", "forearm", "hand", "thigh", "shin", "foot")
    ),
)  # fmt: skip

GARMENTS = ("skin", "hair", "shirt", "sleeve", "trousers", "shoe")

# What each part wears, as an index into GARMENTS.
_WORN = {
    "pelvis": "trousers", "belly": "shirt", "chest": "shirt", "neck": "skin", "head": "skin", "hair": "hair",
    "nose": "skin", "shoulder": "shirt", "upper_arm": "shirt", "forearm": "sleeve", "hand": "skin",
    "thigh": "trousers", "shin": "trousers", "foot": "shoe",
}  # fmt: skip
PART_GARMENT = np.array([GARMENTS.index(_WORN[part.split("_", 1)[1] if "_" in part else part]) for part in PARTS])


@dataclass(frozen=True)
class BodyShape:
    """Proportions of one subject.

    height in meters; the rest are factors of an average body: girth (all thicknesses), shoulders (width), belly
    (depth of the waist), arms and legs (length).
    """

    height: float = 1.75
    girth: float = 1.0
    shoulders: float = 1.0
    belly: float = 1.0
    arms: float = 1.0
    legs: float = 1.0

    @property
    def scale(self) -> float:
        """Height relative to the average."""
        return self.height / 1.75

    @property
    def upper_arm(self) -> float:
        """Shoulder to elbow, meters."""
        return 0.29 * self.scale * self.arms

    @property
    def forearm(self) -> float:
        """Elbow to wrist, meters."""
        return 0.26 * self.scale * self.arms

    @property
    def thigh(self) -> float:
        """Hip to knee, meters."""
        return 0.42 * self.scale * self.legs

    @property
    def shin(self) -> float:
        """Knee to ankle, meters."""
        return 0.40 * self.scale * self.legs

    @property
    def ankle_height(self) -> float:
        """Ankle above the floor, meters."""
        return 0.09 * self.scale

    @property
    def hip_height(self) -> float:
        """Height of the hips above the floor in the resting pose, meters."""
        return 0.985 * (self.thigh + self.shin) + self.ankle_height

    @property
    def half_hips(self) -> float:
        """Mid hip to hip, meters."""
        return 0.095 * self.scale * (0.7 + 0.3 * self.girth)

    @property
    def half_shoulders(self) -> float:
        """Neck to shoulder, meters."""
        return 0.185 * self.scale * self.shoulders


SUBJECTS = (
    BodyShape(1.75),
    BodyShape(1.60, girth=0.92, shoulders=0.90, legs=1.02),
    BodyShape(1.88, girth=1.02, shoulders=1.10, arms=1.04, legs=1.03),
    BodyShape(1.70, girth=1.24, shoulders=1.06, belly=1.35, legs=0.97),
    BodyShape(1.52, girth=0.86, shoulders=0.88, arms=0.96),
    BodyShape(1.80, girth=0.84, shoulders=0.96, arms=1.05, legs=1.05),
    BodyShape(1.66, girth=1.10, shoulders=1.12, arms=0.98, legs=0.95),
    BodyShape(1.83, girth=1.18, shoulders=1.10, belly=1.20),
)


@dataclass(frozen=True)
class Posture:
    """Pose of the body at T times, in meters and radians in world coordinates; right before left.

    pelvis (T, 3) the mid hip; yaw, pitch, roll (T,) of the trunk, yaw 0 facing +x; twist (T,) of the chest against the
    pelvis; look (T, 2) yaw and pitch of the head against the chest; wrists (T, 2, 3) wanted positions, drawn in when
    out of reach; elbows (T, 2, 3) directions of the elbows; ankles (T, 2, 3); toes (T, 2) yaw of the feet.
    """

    pelvis: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    twist: np.ndarray
    look: np.ndarray
    wrists: np.ndarray
    elbows: np.ndarray
    ankles: np.ndarray
    toes: np.ndarray


@dataclass(frozen=True)
class Body:
    """A posed body at T times.

    joints (T, 25, 3) meters, in the order of JOINTS; centers (T, P, 3), axes (T, P, 3, 3) with the ellipsoids' own axes
    as columns, radii (P, 3), in the order of PARTS.
    """

    joints: np.ndarray
    centers: np.ndarray
    axes: np.ndarray
    radii: np.ndarray

    def surface(self, part: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World positions (T, N, 3) and outward normals (T, N, 3) of points fixed to the skin.

        part (N,) indices into PARTS, unit (N, 3) positions on the unit sphere that becomes the ellipsoid.
        """
        radii = self.radii[part]
        axes = self.axes[:, part]
        position = self.centers[:, part] + np.einsum("tnij,nj->tni", axes, unit * radii)
        normal = np.einsum("tnij,nj->tni", axes, unit / radii)
        return position, normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def pose_body(shape: BodyShape, posture: Posture) -> Body:
    """Place the skeleton by forward kinematics for the trunk and two-bone inverse kinematics for the limbs."""
    size = shape.scale
    joints: dict[str, np.ndarray] = {}
    parts: dict[str, tuple[np.ndarray, np.ndarray, tuple[float, float, float]]] = {}

    hips = _rotation(posture.yaw, posture.pitch * 0.4, posture.roll)
    trunk = _rotation(posture.yaw + posture.twist, posture.pitch, posture.roll)
    head = _rotation(posture.yaw + posture.twist + posture.look[:, 0], posture.pitch * 0.5 + posture.look[:, 1], 0.0)

    def at(origin: np.ndarray, frame: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
        return origin + frame @ np.array([x, y, z])

    thick = size * shape.girth
    pelvis = posture.pelvis
    neck = at(pelvis, trunk, 0.0, 0.0, 0.50 * size)
    skull = at(neck, head, 0.015 * size, 0.0, 0.19 * size)
    joints["hip_center"], joints["neck"] = pelvis, neck
    joints["nose"] = at(skull, head, 0.112 * size, 0.0, -0.01 * size)
    parts["pelvis"] = (at(pelvis, hips, 0.0, 0.0, 0.03 * size), hips, (0.118 * thick, 0.165 * thick, 0.125 * size))
    parts["belly"] = (
        at(pelvis, trunk, 0.012 * shape.belly, 0.0, 0.19 * size),
        trunk,
        (0.108 * thick * shape.belly, 0.150 * thick, 0.16 * size),
    )
    parts["chest"] = (
        at(pelvis, trunk, 0.0, 0.0, 0.37 * size),
        trunk,
        (0.118 * thick, 0.175 * size * (0.5 * shape.shoulders + 0.5 * shape.girth), 0.18 * size),
    )
    parts["neck"] = (at(neck, head, 0.0, 0.0, 0.045 * size), head, (0.052 * thick, 0.052 * thick, 0.08 * size))
    parts["head"] = (skull, head, (0.098 * size, 0.080 * size, 0.122 * size))
    parts["hair"] = (at(skull, head, -0.022 * size, 0.0, 0.03 * size), head, (0.094 * size, 0.087 * size, 0.108 * size))
    parts["nose"] = (
        joints["nose"] - head @ np.array([0.018 * size, 0, 0]),
        head,
        (0.02 * size, 0.014 * size, 0.02 * size),
    )

    for index, side in enumerate(SIDES):
        out = -1.0 if side == "right" else 1.0
        joints[f"{side}_eye"] = at(skull, head, 0.090 * size, out * 0.034 * size, 0.022 * size)
        joints[f"{side}_ear"] = at(skull, head, 0.0, out * 0.080 * size, 0.0)

        shoulder = at(neck, trunk, 0.0, out * shape.half_shoulders, -0.035 * size)
        elbow, wrist, arm_plane = _two_bones(
            shoulder, posture.wrists[:, index], posture.elbows[:, index], shape.upper_arm, shape.forearm
        )
        joints[f"{side}_shoulder"], joints[f"{side}_elbow"], joints[f"{side}_wrist"] = shoulder, elbow, wrist
        round_arm = 0.050 * thick
        parts[f"{side}_shoulder"] = (shoulder, trunk, (0.066 * thick, 0.066 * thick, 0.068 * thick))
        parts[f"{side}_upper_arm"] = _limb(shoulder, elbow, arm_plane, round_arm * 1.08, 1.16, shape.upper_arm)
        parts[f"{side}_forearm"] = _limb(elbow, wrist, arm_plane, round_arm * 0.86, 1.18, shape.forearm)
        along = _unit(wrist - elbow)
        fist = wrist + along * (0.062 * size)
        parts[f"{side}_hand"] = (fist, _frame(along, arm_plane), (0.042 * size, 0.034 * size, 0.082 * size))

        hip = at(pelvis, hips, 0.0, out * shape.half_hips, -0.01 * size)
        forward = np.stack([np.cos(posture.toes[:, index]), np.sin(posture.toes[:, index]), np.zeros(len(pelvis))], -1)
        knee, ankle, leg_plane = _two_bones(hip, posture.ankles[:, index], forward, shape.thigh, shape.shin)
        joints[f"{side}_hip"], joints[f"{side}_knee"], joints[f"{side}_ankle"] = hip, knee, ankle
        parts[f"{side}_thigh"] = _limb(hip, knee, leg_plane, 0.082 * thick, 1.16, shape.thigh)
        parts[f"{side}_shin"] = _limb(knee, ankle, leg_plane, 0.058 * thick, 1.16, shape.shin)

        sole = _rotation(posture.toes[:, index], 0.0, 0.0)
        low = -shape.ankle_height
        joints[f"{side}_big_toe"] = at(ankle, sole, 0.19 * size, -out * 0.02 * size, low + 0.02)
        joints[f"{side}_small_toe"] = at(ankle, sole, 0.16 * size, out * 0.04 * size, low + 0.02)
        joints[f"{side}_heel"] = at(ankle, sole, -0.06 * size, 0.0, low + 0.02)
        parts[f"{side}_foot"] = (
            at(ankle, sole, 0.065 * size, 0.0, low + 0.042 * size),
            sole,
            (0.142 * size, 0.054 * size, 0.05 * size),
        )

    return Body(
        joints=np.stack([joints[name] for name in JOINTS], axis=1),
        centers=np.stack([parts[name][0] for name in PARTS], axis=1),
        axes=np.stack([parts[name][1] for name in PARTS], axis=1),
        radii=np.array([parts[name][2] for name in PARTS]),
    )


# How many tracked points each part carries, left and right alike.
_POINTS = {
    "pelvis": 3, "belly": 4, "chest": 8, "head": 3, "hair": 2, "upper_arm": 3, "forearm": 4, "hand": 2, "thigh": 4,
    "shin": 4, "foot": 1,
}  # fmt: skip


def skin_points(shape: BodyShape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points to track: part (N,) indices into PARTS and unit (N, 3) positions on its sphere, none inside another part.

    Points inside a neighboring part are detected in a standing pose with half-raised arms.
    """
    body = pose_body(shape, _at_ease(shape))
    parts: list[int] = []
    units: list[np.ndarray] = []
    for index, name in enumerate(PARTS):
        wanted = _POINTS.get(name.split("_", 1)[1] if "_" in name else name, 0)
        while wanted:
            unit = rng.normal(size=3)
            unit /= np.linalg.norm(unit)
            position, _ = body.surface(np.array([index]), unit[None])
            local = np.einsum("pji,pj->pi", body.axes[0], position[0, 0] - body.centers[0]) / body.radii
            inside = (local**2).sum(axis=-1) < 1.02
            inside[index] = False
            if not inside.any():
                parts.append(index)
                units.append(unit)
                wanted -= 1
    return np.array(parts), np.array(units)


def _at_ease(shape: BodyShape) -> Posture:
    zero = np.zeros(1)
    side = np.array([-1.0, 1.0])
    high = shape.hip_height
    return Posture(
        pelvis=np.array([[0.0, 0.0, high]]),
        yaw=zero,
        pitch=zero,
        roll=zero,
        twist=zero,
        look=np.zeros((1, 2)),
        wrists=np.stack([0.3 + 0 * side, 0.35 * side, high + 0.2 + 0 * side], -1)[None],
        elbows=np.stack([0 * side, side, -0.6 + 0 * side], -1)[None],
        ankles=np.stack([0 * side, 0.11 * side, shape.ankle_height + 0 * side], -1)[None],
        toes=np.zeros((1, 2)),
    )


def _rotation(yaw: np.ndarray, pitch: np.ndarray | float, roll: np.ndarray | float) -> np.ndarray:
    # (T, 3, 3): roll about x, then pitch about y (positive leans forward), then yaw about z.
    yaw, pitch, roll = np.broadcast_arrays(yaw, pitch, roll)
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector, axis=-1, keepdims=True))


def _two_bones(
    root: np.ndarray, target: np.ndarray, bend: np.ndarray, first: float, second: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Middle and end joint of a limb that reaches for target and bends towards `bend`, and the normal of its plane.
    reach = target - root
    distance = np.clip(
        np.linalg.norm(reach, axis=-1, keepdims=True), abs(first - second) + 0.05, 0.998 * (first + second)
    )
    along = _unit(reach)
    normal = _unit(np.cross(along, bend))
    across = np.cross(normal, along)
    forth = (first**2 - second**2 + distance**2) / (2 * distance)
    aside = np.sqrt(np.maximum(first**2 - forth**2, 0.0))
    return root + along * forth + across * aside, root + along * distance, normal


def _frame(along: np.ndarray, normal: np.ndarray) -> np.ndarray:
    # Right-handed axes with z along the limb and y across its plane.
    return np.stack([np.cross(normal, along), normal, along], axis=-1)


def _limb(
    start: np.ndarray, end: np.ndarray, normal: np.ndarray, radius: float, stretch: float, length: float
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    return (start + end) / 2, _frame(_unit(end - start), normal), (radius, radius, stretch * length / 2)
