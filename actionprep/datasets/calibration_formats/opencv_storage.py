"""Read calibrations that OpenCV's FileStorage writes, as YAML or XML, and camera_info YAML of ROS."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actionprep.datasets.cameras import CalibrationFormat, Camera
from actionprep.errors import UserError

_MATRIX = ("camera_matrix", "cameramatrix", "intrinsic_matrix", "intrinsics", "mtx", "k", "m")
_DISTORTION = ("distortion_coefficients", "distcoeffs", "dist_coeffs", "distortion", "dist", "d")
_ROTATION = ("rvec", "rotation", "rotation_matrix", "r")
_TRANSLATION = ("tvec", "translation", "t")
_WIDTH, _HEIGHT = ("image_width", "width"), ("image_height", "height")
_SIZE = ("image_size", "imagesize", "size")

_MOST_VALUES = 4096
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\.(?:nan|NaN|Nan|inf|Inf)"


def _recognizes(path: Path, text: str) -> bool:
    suffix = path.suffix.lower()
    if suffix in (".yml", ".yaml"):
        return "opencv-matrix" in text or "camera_matrix" in text
    return suffix == ".xml" and "<opencv_storage" in text


def _read(path: Path, text: str) -> list[Camera]:
    nodes = _xml_nodes(text) if path.suffix.lower() == ".xml" else _yaml_nodes(text)
    if _find(nodes, _MATRIX) is not None:
        return [_camera(path.stem, nodes, "")]
    cameras = []
    # Pairs of stereo_calib: M1, D1, M2, D2; R and T lead from the first camera to the second.
    for number in "12":
        if _find(nodes, _MATRIX, number) is None:
            raise UserError(
                f"has no camera_matrix{'' if number == '1' else ' of camera 2'}. Its entries: "
                f"{', '.join(sorted(nodes)[:12]) or 'none'}."
            )
        cameras.append(_camera(number, nodes, number))
    return cameras


def _camera(view: str, nodes: dict[str, np.ndarray], number: str) -> Camera:
    matrix = _find(nodes, _MATRIX, number)
    distortion = _find(nodes, _DISTORTION, number)
    if matrix is None or distortion is None:
        raise UserError(f"Camera '{view}': no {'distortion_coefficients' if matrix is not None else 'camera_matrix'}.")
    if matrix.size != 9:
        raise UserError(f"Camera '{view}': expected a camera matrix of 9 values, got {matrix.size}.")
    pose = (_find(nodes, _ROTATION), _find(nodes, _TRANSLATION))
    if number == "1" and pose[0] is not None:
        pose = (np.eye(3), np.zeros(3))
    rotation = None if pose[0] is None else pose[0].reshape(3, 3) if pose[0].size == 9 else pose[0].reshape(-1)
    size = _find(nodes, _SIZE)
    width, height = _find(nodes, _WIDTH), _find(nodes, _HEIGHT)
    if width is not None and height is not None:
        size = np.concatenate([width.reshape(-1), height.reshape(-1)])
    known = size is not None and size.size == 2 and bool(np.isfinite(size).all())
    flat = distortion.reshape(-1)
    model = nodes.get("fisheye_model", nodes.get("fisheye"))
    # calibrateCamera writes 14 values for tilted sensors; without tilt the last two are 0.
    if flat.size == 14 and not flat[12:].any():
        flat = flat[:12]
    return Camera(
        view,
        matrix=matrix.reshape(3, 3),
        distortion=flat,
        rotation=rotation,
        translation=None if pose[1] is None else pose[1].reshape(-1),
        width=int(size[0]) if known and size is not None else 0,
        height=int(size[1]) if known and size is not None else 0,
        fisheye=model is not None and bool(model.any()),
    )


def _find(nodes: dict[str, np.ndarray], names: Sequence[str], number: str = "") -> np.ndarray | None:
    return next((nodes[name + number] for name in names if name + number in nodes), None)


def _yaml_nodes(text: str) -> dict[str, np.ndarray]:
    """Return numbers, lists of numbers and matrices of a YAML document, by their names in lower case."""
    nodes: dict[str, np.ndarray] = {}
    matrix = re.compile(
        r"^[ \t]*(\w+):[ \t]*(?:!!opencv-matrix)?[ \t]*\r?\n[ \t]*rows:[ \t]*(\d{1,4})\s+cols:[ \t]*(\d{1,4})\s+"
        r"(?:dt:[ \t]*\"?\w+\"?\s+)?data:[ \t]*\[([^\]]*)\]",
        re.MULTILINE,
    )
    for match in matrix.finditer(text):
        nodes[match[1].lower()] = _values(match[4], match[1], int(match[2]), int(match[3]))
    begun = set(re.findall(r"^[ \t]*(\w+):[ \t]*!!opencv-matrix", text, re.MULTILINE))
    cut = sorted(name for name in begun if name.lower() not in nodes)
    if cut:
        raise UserError(f"the matrix '{cut[0]}' is cut off or damaged.")
    for match in re.finditer(rf"^(\w+):[ \t]*({_NUMBER})[ \t]*\r?$", text, re.MULTILINE):
        nodes.setdefault(match[1].lower(), _values(match[2], match[1], 1, 1))
    for match in re.finditer(r"^(\w+):[ \t]*\[([^\]]*)\]", text, re.MULTILINE):
        if re.fullmatch(rf"(?:\s*(?:{_NUMBER})\s*,?)+", match[2]):
            nodes.setdefault(match[1].lower(), _values(match[2], match[1]))
    return nodes


def _xml_nodes(text: str) -> dict[str, np.ndarray]:
    if "<!" in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL):
        raise UserError("has a document type or entities, which a calibration does not need.")
    try:
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"is not valid XML: {error}.") from None
    nodes: dict[str, np.ndarray] = {}
    for node in root:
        name = str(node.tag)
        data = node.find("data")
        if data is not None:
            extent = [(node.findtext(key) or "").strip() for key in ("rows", "cols")]
            if not all(re.fullmatch(r"\d{1,4}", each) for each in extent):
                raise UserError(f"the matrix '{name}' has no rows and cols.")
            nodes[name.lower()] = _values(data.text or "", name, int(extent[0]), int(extent[1]))
        elif not len(node) and re.fullmatch(rf"(?:\s*(?:{_NUMBER})\s*)+", node.text or ""):
            nodes[name.lower()] = _values(node.text or "", name)
    return nodes


def _values(text: str, name: str, rows: int = 0, cols: int = 0) -> np.ndarray:
    words = text.replace(",", " ").split()
    if len(words) > _MOST_VALUES:
        raise UserError(f"the entry '{name}' has {len(words)} values, more than any part of a camera.")
    try:
        values = np.array([float(word.lower().replace(".nan", "nan").replace(".inf", "inf")) for word in words])
    except ValueError:
        raise UserError(f"the entry '{name}' is not made of numbers.") from None
    if not rows and not cols:
        return values
    if len(values) != rows * cols:
        raise UserError(f"the matrix '{name}' states {rows} x {cols} values and has {len(values)}.")
    return values.reshape(rows, cols)


FORMAT = CalibrationFormat(
    "opencv",
    "OpenCV FileStorage yaml or xml, one file per camera or a stereo pair",
    (".yml", ".yaml", ".xml"),
    _recognizes,
    _read,
)
