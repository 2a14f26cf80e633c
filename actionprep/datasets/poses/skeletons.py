"""Skeleton layouts as data, and conversion of keypoints from one layout to another by joint names.

A layout is a TOML file (`layouts/*.toml`, or a custom one): joints, limbs, symmetric pairs, root. Everything else
(tree, flip order, colors, conversions) derives from it.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionprep.datasets.names_to_ids import is_text
from actionprep.errors import InputError, UserError, name_list, nearest

LAYOUTS = Path(__file__).parent / "layouts"
_KEYS = ("name", "title", "source", "aliases", "dimensions", "root", "joints", "limbs", "symmetric", "derive")


@dataclass(frozen=True)
class Skeleton:
    """A layout: the joints, their order and the limbs between them.

    Attributes:
        name: Name of the layout.
        joints: Names of the joints, in order.
        limbs: Pairs of joint indices, in the order of drawing and of limb heatmaps.
        symmetric: Pairs of left and right joint indices.
        root: Index of the root joint.
        dimensions: 2 or 3.
        title: Title for lists.
        source: Where the layout is defined.
        aliases: Other names of the layout.
        derive: For a joint, lists of other joints. If a source layout does not have the joint, it is the mean of the
            first list that the source has completely.
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    symmetric: tuple[tuple[int, int], ...]
    root: int
    dimensions: int = 2
    title: str = ""
    source: str = ""
    aliases: tuple[str, ...] = ()
    derive: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def num_joints(self) -> int:
        """Number of joints, K."""
        return len(self.joints)

    @property
    def limb_names(self) -> tuple[str, ...]:
        """Name of each limb from its two joints, such as "left_elbow-left_wrist"."""
        return tuple(f"{self.joints[a]}-{self.joints[b]}" for a, b in self.limbs)

    def index(self, joint: str) -> int:
        """Position of a joint in the layout. Raises UserError that names the nearest joint."""
        if joint not in self.joints:
            raise UserError(f"Skeleton '{self.name}' has no joint '{joint}'.{nearest(joint, self.joints)}")
        return self.joints.index(joint)

    @cached_property
    def flip_order(self) -> tuple[int, ...]:
        """Joint order after a horizontal mirror: new[j] = old[flip_order[j]]."""
        order = list(range(self.num_joints))
        for left, right in self.symmetric:
            order[left], order[right] = right, left
        return tuple(order)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """Kinematic tree: parent of every joint, breadth first over the limbs from the root; -1 for the root.

        A joint that no limb connects to the root has -1 too.
        """
        parents = [-1] * self.num_joints
        for child, parent in self._walk():
            parents[child] = parent
        return tuple(parents)

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(joint, parent) of every joint that has a parent, parents before children."""
        return tuple(self._walk())

    def _walk(self) -> list[tuple[int, int]]:
        neighbors: list[list[int]] = [[] for _ in self.joints]
        for a, b in self.limbs:
            neighbors[a].append(b)
            neighbors[b].append(a)
        seen, queue, edges = {self.root}, [self.root], []
        for parent in queue:
            for child in neighbors[parent]:
                if child not in seen:
                    seen.add(child)
                    queue.append(child)
                    edges.append((child, parent))
        return edges

    @cached_property
    def sides(self) -> tuple[str, ...]:
        """'left', 'right' or 'center' for every joint, from the symmetric pairs."""
        sides = ["center"] * self.num_joints
        for left, right in self.symmetric:
            sides[left], sides[right] = "left", "right"
        return tuple(sides)

    @property
    def joint_colors(self) -> tuple[tuple[int, int, int], ...]:
        """RGB of every joint: one hue for the left, one for the right, one for the middle."""
        return tuple(_COLORS[side] for side in self.sides)

    @property
    def limb_colors(self) -> tuple[tuple[int, int, int], ...]:
        """RGB of every limb: that of its side; a limb that touches the middle takes the side of its other end."""
        colors = []
        for a, b in self.limbs:
            ends = {self.sides[a], self.sides[b]} - {"center"}
            colors.append(_COLORS[ends.pop() if len(ends) == 1 else "center"])
        return tuple(colors)


_COLORS = {"left": (255, 127, 14), "right": (31, 119, 220), "center": (60, 180, 75)}


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion between two layouts.

    Attributes:
        source: Name of the source layout.
        target: Name of the target layout.
        kept: Target joints that were copied, with the joint of the source.
        derived: Target joints that are means of source joints, with these joints.
        missing: Target joints that have no source; their score is 0.
        lost: Source joints that the target does not use.
    """

    source: str
    target: str
    kept: Mapping[str, str]
    derived: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]
    lost: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.source} → {self.target}: {len(self.kept)} joints kept"]
        if self.derived:
            made = [
                f"{joint} = {of[0] if len(of) == 1 else 'mean of ' + ' + '.join(of)}"
                for joint, of in self.derived.items()
            ]
            parts.append("derived " + ", ".join(made))
        if self.missing:
            parts.append("missing " + name_list(self.missing))
        if self.lost:
            parts.append("not carried over " + name_list(self.lost))
        return "; ".join(parts)


def skeleton(name: str | Skeleton) -> Skeleton:
    """Return a layout.

    Args:
        name: Name or alias of a layout, path of a TOML file, or a layout, which is returned as it is.

    Returns:
        The layout.

    Raises:
        UserError: If no layout has this name; the error names the nearest one.
    """
    if isinstance(name, Skeleton):
        return name
    if name.endswith(".toml"):
        kept = _from_stores.get(name)
        return kept if kept is not None and not Path(name).is_file() else load_layout(name)
    key = _normal(name)
    layouts = _built_in()
    if key not in layouts and name in _from_stores:
        return _from_stores[name]
    if key not in layouts:
        names = skeleton_names()
        transposed = next((known for known in layouts if sorted(known) == sorted(key)), None)  # for example coco71
        near = nearest(transposed or key, layouts) or nearest(key.rstrip("0123456789_"), layouts)
        raise UserError(
            f"Unknown skeleton '{name}'.{near} Known: {', '.join(names)}; "
            "or give the path of a custom layout, a file that ends in .toml."
        )
    return layouts[key]


def layout_in(name: str, folder: str | Path) -> str:
    """Return the name of a layout, with the path of a TOML file made absolute.

    Stored items name their layout, so that readers of the store can locate the file from any folder.

    Args:
        name: Name of a layout, or path of a TOML file.
        folder: Folder that relative paths start from.

    Returns:
        The name, or the absolute path.
    """
    return str(Path(folder, Path(name).expanduser()).resolve()) if name.endswith(".toml") else name


# Layouts read from stores and pose files, by name.
_from_stores: dict[str, Skeleton] = {}


def stored_layout(name: str) -> dict[str, Any]:
    """Return attributes that store a custom layout, {"layout": …}, so that readers do not need its file; else {}."""
    if not name.endswith(".toml") and name not in _from_stores:
        return {}
    layout = skeleton(name)
    table: dict[str, Any] = {
        "joints": list(layout.joints),
        "limbs": [[layout.joints[a], layout.joints[b]] for a, b in layout.limbs],
        "symmetric": [[layout.joints[a], layout.joints[b]] for a, b in layout.symmetric],
        "root": layout.joints[layout.root],
        "dimensions": layout.dimensions,
        "name": layout.name,
        "title": layout.title,
        "derive": {joint: [list(joints) for joints in alternatives] for joint, alternatives in layout.derive.items()},
    }
    return {"layout": table}


def skeleton_of_item(attributes: Mapping[str, Any]) -> str:
    """Return the name of a stored item's layout, and register a layout stored with it for `skeleton`."""
    name = str(attributes["skeleton"])
    if "layout" in attributes:
        _from_stores[name] = _from_table(
            dict(attributes["layout"]), name=name, where=f"the layout '{name}' of the store"
        )
    return name


def skeleton_names() -> list[str]:
    """Return the names of the layouts in the package."""
    return sorted({layout.name for layout in _built_in().values()})


def load_layout(path: str | Path) -> Skeleton:
    """Read a layout from TOML.

    joints = ["head", "tail", "left_paw", "right_paw"]     required
    limbs = [["head", "tail"], …]                          required, pairs of joint names
    symmetric = [["left_paw", "right_paw"]]                default: every left_x with right_x
    root = "tail"                                          default: the first joint
    dimensions = 2                                         or 3
    [derive]                                               optional: how to make a joint from others on conversion
    middle = [["left_paw", "right_paw"], ["tail"]]         alternatives; the first with all its joints is used

    Args:
        path: Path of the file.

    Returns:
        The layout.

    Raises:
        UserError: If the file cannot be read, or a key is wrong; the error names the nearest valid key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"The skeleton layout {path} is not UTF-8 text: {error.reason} at byte {error.start}."
        ) from None
    except OSError as error:
        raise UserError(
            f"No skeleton layout at {path} ({error.strerror or error}). Give a TOML file with joints and limbs."
        ) from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"The skeleton layout {path} is not valid TOML: {error}.") from None
    return _from_table(table, name=path.stem, where=str(path))


def match_layout(joints: Iterable[str]) -> Skeleton | None:
    """The built-in layout that has these joint names in this order, or None."""
    wanted = [_common_name(joint) for joint in joints]
    for layout in _built_in().values():
        if [_common_name(joint) for joint in layout.joints] == wanted:
            return layout
    return None


def layout_of_names(
    joints: Sequence[str], *, name: str, limbs: Iterable[tuple[int, int]] = (), source: str = ""
) -> Skeleton:
    """Return the layout that a file describes by the names of its joints.

    A built-in layout with these names in this order is returned as it is. Otherwise a layout is made, and `skeleton`
    finds it by its name from then on. The name contains a hash of the joints, so that two files with equal joints have
    equal layouts.

    Args:
        joints: Names of the joints, in the order of the file.
        name: Beginning of the layout's name, for example the name of the animal.
        limbs: Pairs of joint indices; pairs that are not two different joints are left out.
        source: Where the layout comes from.

    Returns:
        The layout. Joints with "left" and "right", or "l" and "r", as a part of their names are symmetric.

    Raises:
        UserError: If there are no joints, or if two joints have the same name.
        InputError: If a name is not text.
    """
    odd = next((joint for joint in joints if not is_text(joint)), None)
    if odd is not None:
        raise InputError(f"{source or name} has the joint name {odd!r}, which is not text.")
    known = match_layout(joints)
    if known is not None:
        return known
    names = [_normal(joint) for joint in joints]
    if len(set(names)) != len(names):
        names = [joint.strip() for joint in joints]
    edges = {(min(a, b), max(a, b)): None for a, b in limbs if a != b and min(a, b) >= 0 and max(a, b) < len(names)}
    digest = hashlib.sha256("\n".join([*names, *map(str, edges)]).encode()).hexdigest()
    key = f"{re.sub(r'[^a-z0-9]+', '-', name.lower())[:40].strip('-') or 'joints'}{len(names)}-{digest[:8]}"
    if key not in _from_stores:
        pairs = ((joint, _mirrored(joint, names)) for joint in names)
        table = {
            "joints": names,
            "limbs": [[names[a], names[b]] for a, b in edges],
            "symmetric": [[left, right] for left, right in pairs if right is not None],
            "source": source,
            "title": f"{name}, {len(names)} joints",
        }
        _from_stores[key] = _from_table(table, name=key, where=source or f"the layout '{key}'")
    return _from_stores[key]


def _mirrored(joint: str, joints: Sequence[str]) -> str | None:
    """The joint that is the mirror image of a left one; None for all others."""
    parts = re.split(r"([^A-Za-z]+)", joint)
    for at, part in enumerate(parts):
        other = {"left": "right", "l": "r"}.get(part.lower())
        if other is not None:
            right = other if part.islower() else other.upper() if part.isupper() else other.capitalize()
            name = "".join([*parts[:at], right, *parts[at + 1 :]])
            return name if name in joints else None
    return None


# Other names of the same joint of the same layout, as annotation files have them.
_SYNONYMS = {"head_bottom": "neck", "root": "hip_center", "mid_hip": "hip_center", "head": "face"}
# MMPose writes left_forefinger1 and left_middle_finger1 where others write left_index_1 and left_middle_1.
_FINGER = re.compile(r"(left|right)_(thumb|forefinger|index|middle|ring|pinky)(?:_finger)?_?([1-4])")


def _common_name(joint: str) -> str:
    name = _normal(joint)
    finger = _FINGER.fullmatch(name)
    if finger is not None:
        side, which, number = finger.groups()
        return f"{side}_{'index' if which == 'forefinger' else which}_{number}"
    return _SYNONYMS.get(name, name)


def convert(
    keypoints: ArrayLike, score: ArrayLike, source: str | Skeleton, target: str | Skeleton
) -> tuple[NDArray[np.float32], NDArray[np.float32], Conversion]:
    """Convert keypoints from one layout to another.

    A joint with the same name is copied. A derived joint is the mean of its sources and has the lowest of their scores. It
    is missing (score 0, coordinates 0) if one of its sources has score 0.

    Args:
        keypoints: Coordinates in the source layout, shape (..., K, C).
        score: Scores in the source layout, shape (..., K).
        source: Layout of the keypoints.
        target: Requested layout, with L joints.

    Returns:
        Coordinates of shape (..., L, C), scores of shape (..., L), and a description of the conversion.

    Raises:
        UserError: If the arrays do not have the joints of the source.
    """
    source, target = skeleton(source), skeleton(target)
    points = np.asarray(keypoints, np.float32)
    seen = np.asarray(score, np.float32)
    if points.ndim < 2 or points.shape[-2] != source.num_joints or seen.shape != points.shape[:-1]:
        raise UserError(
            f"Skeleton '{source.name}' has {source.num_joints} joints: expected keypoints (..., "
            f"{source.num_joints}, C) with score (..., {source.num_joints}), got {points.shape} with {seen.shape}."
        )
    sources, conversion = _plan(source, target)
    new_points = np.zeros((*points.shape[:-2], target.num_joints, points.shape[-1]), np.float32)
    new_score = np.zeros((*points.shape[:-2], target.num_joints), np.float32)
    for joint, weights in enumerate(sources):
        if len(weights) == 1:
            [index] = weights
            new_points[..., joint, :] = points[..., index, :]
            new_score[..., joint] = seen[..., index]
        elif weights:
            indices = list(weights)
            share = np.array([weights[index] for index in indices], np.float32)
            lowest = seen[..., indices].min(-1)
            mean = np.einsum("...kc,k->...c", points[..., indices, :], share)
            new_points[..., joint, :] = np.where((lowest > 0)[..., None], mean, 0)
            new_score[..., joint] = lowest
    return new_points, new_score, conversion


def conversion(source: str | Skeleton, target: str | Skeleton) -> Conversion:
    """Return which joints `convert` would keep, derive, miss and drop between two layouts."""
    return _plan(skeleton(source), skeleton(target))[1]


@lru_cache(maxsize=256)
def _plan(source: Skeleton, target: Skeleton) -> tuple[list[dict[int, float]], Conversion]:
    def resolve(joint: str, busy: frozenset[str]) -> dict[str, float] | None:
        if joint in source.joints:
            return {joint: 1.0}
        for alternative in target.derive.get(joint, ()):
            if joint in busy:
                return None
            parts = [resolve(part, busy | {joint}) for part in alternative]
            if all(part is not None for part in parts):
                total: dict[str, float] = {}
                for part in parts:
                    for name, share in (part or {}).items():
                        total[name] = total.get(name, 0.0) + share / len(parts)
                return total
        return None

    sources: list[dict[int, float]] = []
    kept: dict[str, str] = {}
    derived: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []
    for joint in target.joints:
        resolved = resolve(joint, frozenset())
        sources.append({source.index(name): share for name, share in (resolved or {}).items()})
        if resolved is None:
            missing.append(joint)
        elif list(resolved) == [joint]:
            kept[joint] = joint
        else:
            derived[joint] = tuple(resolved)
    used = {index for weights in sources for index in weights}
    lost = tuple(joint for index, joint in enumerate(source.joints) if index not in used)
    done = Conversion(source.name, target.name, MappingProxyType(kept), MappingProxyType(derived), tuple(missing), lost)
    return sources, done


@lru_cache(maxsize=1)
def _built_in() -> Mapping[str, Skeleton]:
    layouts: dict[str, Skeleton] = {}
    for path in sorted(LAYOUTS.glob("[!_]*.toml")):
        layout = load_layout(path)
        for name in (layout.name, *layout.aliases):
            layouts[_normal(name)] = layout
    return MappingProxyType(layouts)


@lru_cache(maxsize=1)
def joint_positions() -> Mapping[str, tuple[float, float]]:
    """Return where to draw a joint of a known name: x to the viewer's right, y downwards, in body heights."""
    table = tomllib.loads((LAYOUTS / "_positions.toml").read_text(encoding="utf-8"))
    return MappingProxyType({name: (float(x), float(y)) for name, (x, y) in table.items()})


def _normal(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _from_table(table: dict[str, Any], *, name: str, where: str) -> Skeleton:
    for key in table:
        if key not in _KEYS:
            raise UserError(f"Unknown key '{key}' in {where}.{nearest(key, _KEYS)} Known keys: {', '.join(_KEYS)}.")
    for key in ("joints", "limbs"):
        if key not in table:
            raise UserError(f"{where} has no '{key}'. A layout needs joints = [names] and limbs = [[name, name], …].")
    joints = tuple(_strings(table["joints"], "joints", where))
    if not joints:
        raise UserError(f"{where} has an empty list of joints.")
    twice = sorted({joint for joint in joints if joints.count(joint) > 1})
    if twice:
        raise UserError(f"{where} names a joint twice: {', '.join(twice)}. Joint names must be unique.")

    def position(joint: str, key: str) -> int:
        if joint not in joints:
            raise UserError(
                f"'{key}' in {where} names '{joint}', which is not among its joints.{nearest(joint, joints)}"
            )
        return joints.index(joint)

    def pairs(key: str, value: Any) -> tuple[tuple[int, int], ...]:
        layouts = []
        if not isinstance(value, list):
            raise UserError(f"'{key}' in {where} must be a list of pairs of joint names, got {value!r}.")
        for pair in value:
            if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
                raise UserError(f"'{key}' in {where} must hold pairs of two different joint names, got {pair!r}.")
            layouts.append((position(pair[0], key), position(pair[1], key)))
        return tuple(layouts)

    symmetric = table.get("symmetric")
    if symmetric is None:
        symmetric = [
            [joint, "right_" + joint[5:]]
            for joint in joints
            if joint.startswith("left_") and "right_" + joint[5:] in joints
        ]
    both = pairs("symmetric", symmetric)
    flat = [joint for pair in both for joint in pair]
    if len(flat) != len(set(flat)):
        twice = sorted({joints[joint] for joint in flat if flat.count(joint) > 1})
        raise UserError(f"'symmetric' in {where} names {', '.join(twice)} twice. A joint has one mirror image.")
    dimensions = table.get("dimensions", 2)
    if dimensions not in (2, 3):
        raise UserError(f"'dimensions' in {where} must be 2 or 3, got {dimensions!r}.")
    derive = table.get("derive", {})
    # A derivation may pass through a joint that neither layout has, such as the hip center on the way to the belly.
    steps = {part for of in derive.values() if isinstance(of, list) for a in of if isinstance(a, list) for part in a}
    for joint, alternatives in derive.items():
        if joint not in steps:
            position(joint, "derive")
        if not isinstance(alternatives, list) or not all(isinstance(a, list) and a for a in alternatives):
            raise UserError(
                f"'derive.{joint}' in {where} must be a list of alternatives, each a list of joint names, "
                f'as in [["left_hip", "right_hip"], ["spine_base"]]; got {alternatives!r}.'
            )
    return Skeleton(
        name=str(table.get("name", name)),
        joints=joints,
        limbs=pairs("limbs", table["limbs"]),
        symmetric=both,
        root=position(str(table.get("root", joints[0])), "root"),
        dimensions=int(dimensions),
        title=str(table.get("title", "")),
        source=str(table.get("source", "")),
        aliases=tuple(_strings(table.get("aliases", []), "aliases", where)),
        derive=MappingProxyType({joint: tuple(tuple(map(str, a)) for a in of) for joint, of in derive.items()}),
    )


def _strings(value: Any, key: str, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"'{key}' in {where} must be a list of names, got {value!r}.")
    return value
