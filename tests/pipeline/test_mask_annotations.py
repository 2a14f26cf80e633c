"""Masks of annotation files: run-length encoding by an own encoder, and the forms of SAM 2, COCO, CVAT, DAVIS and DEVA."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stage_runs import run_masks, view_source

from actionprep.datasets.products.masks import unpack_masks
from actionprep.errors import InputError
from actionprep.pipeline.mask_sources.annotated import AnnotatedMasks
from actionprep.pipeline.mask_sources.rle import decode_coco, decode_cvat, uncompressed
from actionprep.pipeline.mask_sources.settings import MasksSettings

T, H, W = 4, 12, 17
DATA = Path(__file__).parents[2].parent / "shared/data/foreign"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data/foreign")


@pytest.fixture
def ids() -> np.ndarray:
    """Object ids (T, H, W): objects 1 and 2 move down; frame 3 is empty."""
    masks = np.zeros((T, H, W), np.uint8)
    for t in range(T - 1):
        masks[t, t + 1 : t + 5, 2:6] = 1
        masks[t, t + 2 : t + 8, 9:16] = 2
    return masks


def runs(mask: np.ndarray) -> list[int]:
    """Count runs pixel by pixel, beginning with background."""
    counts, current = [0], False
    for value in mask.reshape(-1).tolist():
        if bool(value) != current:
            counts.append(0)
            current = bool(value)
        counts[-1] += 1
    return counts


def compressed(counts: list[int]) -> str:
    """Encode runs as the description of the format states it (maskApi.c, rleToString)."""
    text = ""
    for position, count in enumerate(counts):
        value = count - counts[position - 2] if position > 2 else count
        while True:
            group, value = value & 31, value >> 5
            done = value == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if done else 32))
            if done:
                break
    return text


def rle(mask: np.ndarray, *, text: bool = True) -> dict[str, object]:
    counts = runs(mask.T)
    return {"size": list(mask.shape), "counts": compressed(counts) if text else counts}


def run(root: Path, name: str, *, num_frames: int = T, **settings: object) -> np.ndarray:
    source = view_source(num_frames, H, W, root=str(root))
    chosen = MasksSettings(source="files", files=name, **settings)
    item = run_masks(np.zeros((num_frames, H, W), np.uint8), chosen, cuts=[2], source=source)
    return unpack_masks(item["foreground"], W)


@pytest.mark.parametrize("text", [True, False])
def test_decode_coco_random_masks(text):
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random(tuple(rng.integers(1, 60, 2))) < rng.random()
        assert (decode_coco(rle(mask, text=text)) == mask).all()


def test_uncompressed_known_text():
    # From the tests of pycocotools: a mask of 9 x 10 pixels.
    assert uncompressed(compressed([6, 1, 40, 4, 5, 4, 5, 4, 21])) == [6, 1, 40, 4, 5, 4, 5, 4, 21]
    assert uncompressed("61X13mN000`0") == [6, 1, 40, 4, 5, 4, 5, 4, 21]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"size": [2, 3], "counts": [1, 2]}, "its runs cover 3 pixels, and the mask has 6"),
        ({"size": [2, 3], "counts": [-1, 7]}, "its runs cover 6 pixels, and the mask has 6"),
        ({"size": [2, 3], "counts": "\n"}, "character 0 of the compressed counts is damaged"),
        ({"size": [2, 3], "counts": "P"}, "the compressed counts are cut off"),
        ({"size": [2], "counts": [6]}, "expected the size as [height, width], got [2]"),
        ({"size": [100000, 100000], "counts": [6]}, "a mask of 100000 x 100000 pixels is not possible"),
        ({"size": [2, 3], "counts": None}, "expected counts as text or a list of integers, got NoneType"),
    ],
)
def test_decode_coco_damaged(value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        decode_coco(value)


def test_decode_cvat_is_by_rows():
    mask = np.array([[0, 1, 1], [1, 0, 0]], bool)
    assert (decode_cvat("1, 3, 2", 2, 3) == mask).all()
    with pytest.raises(ValueError, match="its runs cover 5 pixels, and the mask has 6"):
        decode_cvat("1, 3, 1", 2, 3)


def document_of(form: str, ids: np.ndarray) -> object:
    masks = [{id: mask == id for id in (1, 2)} for mask in ids]
    if form == "sav_file":
        return {
            "masklet": [[rle(m) for m in each.values()] for each in masks],
            "masklet_id": [1, 2],
            "video_frame_count": 4.0,
        }
    if form == "list":
        return [[rle(m) for m in each.values()] for each in masks]
    if form == "by frame and object":
        return {str(t): {str(id): rle(m) for id, m in each.items()} for t, each in enumerate(masks)}
    if form == "by name from 1":
        return {f"frame_{t + 1:04d}.jpg": {str(id): rle(m) for id, m in each.items()} for t, each in enumerate(masks)}
    if form == "results":
        return [
            {"frame_index": t, "results": [{"object_id": id, "mask": rle(m)} for id, m in each.items()]}
            for t, each in reversed(list(enumerate(masks)))
        ]
    if form == "youtube-vis":
        return {
            "videos": [{"id": 1, "height": H, "width": W, "length": T}],
            "annotations": [
                {
                    "video_id": 1,
                    "category_id": id,
                    "segmentations": [rle(each[id]) if each[id].any() else None for each in masks],
                }
                for id in (1, 2)
            ],
        }
    assert form == "coco"
    return {
        "images": [{"id": 70 + t, "file_name": f"img_{t + 1}.png", "height": H, "width": W} for t in range(T)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": 10 * t + id, "image_id": 70 + t, "category_id": id, "segmentation": rle(m, text=False)}
            for t, each in enumerate(masks)
            for id, m in each.items()
            if m.any()
        ],
    }


@pytest.mark.parametrize(
    "form", ["sav_file", "list", "by frame and object", "by name from 1", "results", "youtube-vis", "coco"]
)
def test_json_masks(tmp_path, ids, form):
    (tmp_path / "m.json").write_text(json.dumps(document_of(form, ids)))
    missing = "empty" if form == "youtube-vis" else "error"
    resize = form == "youtube-vis"  # a frame without masks states no size there
    assert (run(tmp_path, "m.json", missing=missing, resize=resize) == (ids > 0)).all()
    assert (run(tmp_path, "m.json", missing=missing, resize=resize, ids=[2]) == (ids == 2)).all()


def test_coco_polygons(tmp_path):
    document = {
        "images": [{"id": 1, "file_name": "0.png", "height": H, "width": W}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "segmentation": [[2, 3, 8, 3, 8, 9, 2, 9], [10, 0, 17, 0, 10, 7]]}
        ],
    }
    (tmp_path / "m.json").write_text(json.dumps(document))
    expected = np.zeros((1, H, W), bool)
    expected[0, 3:9, 2:8] = True
    for row in range(7):
        for column in range(10, 17):
            expected[0, row, column] = (row + 0.5) + (column - 10 + 0.5) < 7
    assert (run(tmp_path, "m.json", num_frames=1) == expected).all()


def test_sav_masks_of_every_fourth_frame(tmp_path, ids):
    document = document_of("sav_file", ids)
    document["video_frame_count"] = 14.0
    (tmp_path / "m.json").write_text(json.dumps(document))
    masks = run(tmp_path, "m.json", num_frames=14, missing="empty")
    assert (masks[::4] == (ids > 0)).all()
    assert not masks[1].any()
    with pytest.raises(InputError, match=re.escape("has masks of 4 frames, from 0 to 12, every 4 frames.")):
        run(tmp_path, "m.json", num_frames=14)
    document["video_frame_count"] = 40.0
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="it has masks of 4 frames; expected 40, one per frame of the view, or 10"):
        run(tmp_path, "m.json", num_frames=40)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.json", "{", "m.json is not a mask file that can be read: Expecting property name"),
        ("m.json", "{}", "it has no masks; expected COCO annotations, SA-V masklets, or run-length encoded masks"),
        ("m.json", '{"images": [{"id": 1}, {"id": 1}], "annotations": [{"image_id": 2}]}', "m.json is not a mask file"),
        ("m.json", '{"images": [{"id": 1, "file_name": "a1"}], "annotations": [{"image_id": 1}]}', "its annotations have no segmentation"),
        ("m.json", '[[{"size": [12, 17], "counts": [1]}]]', "m.json, object 1 in frame 0: its runs cover 1 pixels, and the mask has 204."),
        ("m.json", '{"videos": [{"name": "a"}, {"name": "b"}], "annotations": []}', "it has masks of 2 videos (a, b); give one file per view"),
        ("m.xml", "<a/>", "its root is <a>; expected <annotations> of CVAT"),
        ("m.xml", '<!DOCTYPE a [<!ENTITY b "c">]><a/>', "it has a document type, which CVAT does not write"),
        ("m.xml", "<annotations></annotations>", "it has no <mask> and no <polygon>"),
        ("m.xml", "<annotations>", "m.xml is not a mask file that can be read"),
        ("m.xml", '<annotations><image id="0" width="17" height="12"><mask rle="4" left="14" top="0" width="4" height="1"/></image></annotations>', "its box 14, 0, 4, 1 is not inside of the frame of 17 x 12"),
    ],
)  # fmt: skip
def test_mask_annotations_damaged(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        run(tmp_path, name, num_frames=1)


def cvat_mask(mask: np.ndarray, extra: str) -> str:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = rows[0], columns[0]
    box = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    counts = ", ".join(map(str, runs(box)))
    return f'<mask {extra} rle="{counts}" left="{left}" top="{top}" width="{box.shape[1]}" height="{box.shape[0]}"/>'


def test_cvat_images(tmp_path, ids):
    images = "".join(
        f'<image id="{t}" name="f{t}.png" width="{W}" height="{H}">'
        + "".join(cvat_mask(mask == id, f'label="{"ab"[id - 1]}"') for id in (1, 2) if (mask == id).any())
        + "</image>"
        for t, mask in enumerate(ids)
    )
    labels = "<label><name>a</name></label><label><name>b</name></label>"
    (tmp_path / "m.xml").write_text(
        f"<annotations><meta><task><labels>{labels}</labels></task></meta>{images}</annotations>"
    )
    assert (run(tmp_path, "m.xml") == (ids > 0)).all()


def test_cvat_video_tracks(tmp_path, ids):
    tracks = "".join(
        f'<track id="{id + 4}" label="a">'
        + "".join(cvat_mask(mask == id, f'frame="{t}" outside="0"') for t, mask in enumerate(ids[:3]))
        + cvat_mask(ids[2] == id, 'frame="3" outside="1"')
        + "</track>"
        for id in (1, 2)
    )
    size = f"<original_size><width>{W}</width><height>{H}</height></original_size>"
    (tmp_path / "m.xml").write_text(f"<annotations><meta><task>{size}</task></meta>{tracks}</annotations>")
    assert (run(tmp_path, "m.xml") == (ids > 0)).all()
    assert (run(tmp_path, "m.xml", ids=[6]) == (ids == 2)).all()


def test_davis_colors_are_palette_ids(tmp_path, ids):
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    (tmp_path / "masks").mkdir()
    for number, mask in enumerate(ids):
        Image.fromarray(colors[mask]).save(tmp_path / f"masks/{number:05d}.png")
    assert (run(tmp_path, "masks") == (ids > 0)).all()
    assert (run(tmp_path, "masks", ids=[2]) == (ids == 2)).all()


def test_deva_json_beside_images(tmp_path, ids):
    (tmp_path / "masks").mkdir()
    for number, mask in enumerate(ids):
        long_ids = mask.astype(np.uint32) * 300
        Image.fromarray(np.stack([long_ids % 256, long_ids // 256, 0 * long_ids], -1).astype(np.uint8)).save(
            tmp_path / f"masks/{number:05d}.png"
        )
        (tmp_path / f"masks/{number:05d}.json").write_text('[{"id": 300}, {"id": 600}]')
    assert (run(tmp_path, "masks") == (ids > 0)).all()
    assert (run(tmp_path, "masks", ids=[600]) == (ids == 2)).all()


def test_json_masks_mutated(tmp_path, ids):
    rng = np.random.default_rng(2)
    path = tmp_path / "m.json"
    settings = MasksSettings(source="files", files="m.json")
    for form in ("sav_file", "coco", "results", "youtube-vis", "by frame and object"):
        text = json.dumps(document_of(form, ids)).encode()
        for _ in range(12):
            data = bytearray(text)
            for position in rng.integers(0, len(data), 3):
                data[position] = rng.integers(32, 127)
            path.write_bytes(data)
            with suppress(InputError):
                masks = AnnotatedMasks(path, settings, T)
                for index in range(T):
                    masks.mask(index)


@needs_data
def test_sav_real_areas():
    """The file states the mean area of each masklet in the frames where it is seen."""
    path = DATA / "sam2/sav_000001_manual.json"
    stated = json.loads(path.read_bytes())
    for id, area in zip(stated["masklet_id"], stated["masklet_size_abs"], strict=True):
        masks = AnnotatedMasks(path, MasksSettings(source="files", files="x", ids=[id]), 483)
        areas = [int(masks.mask(index).sum()) for index in range(0, 483, 4)]
        assert len(areas) == 121
        seen = [value for value in areas if value]
        assert np.mean(seen) == pytest.approx(area, rel=0.01) or np.mean(areas) == pytest.approx(area, rel=0.01)


@needs_data
def test_deva_real_folder():
    images = {}
    for name in ("00001255", "00001258"):
        with Image.open(DATA / f"deva/{name}.png") as image:
            images[name], size = np.asarray(image.convert("RGB")), image.size
    source = view_source(4, size[1], size[0], root=str(DATA))
    chosen = MasksSettings(source="files", files="deva", first_number=1255, missing="empty")
    item = run_masks(np.zeros((4, size[1], size[0]), np.uint8), chosen, cuts=[2], source=source)
    masks = unpack_masks(item["foreground"], size[0])
    for index, name in ((0, "00001255"), (3, "00001258")):
        assert (masks[index] == images[name].any(axis=-1)).all()
        assert masks[index].any()


@needs_data
def test_cvat_real_without_masks():
    with pytest.raises(InputError, match="it has no <mask> and no <polygon>"):
        AnnotatedMasks(DATA / "cvat/for_video_annotations.xml", MasksSettings(source="files", files="x"), 20)
