"""FileMasks: all supported file forms give the same masks, and unusable files raise errors."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from stage_runs import run_masks, view_source

from actionprep.datasets.products.masks import unpack_masks
from actionprep.errors import InputError, UserError
from actionprep.pipeline.mask_sources.files import FileMasks
from actionprep.pipeline.mask_sources.settings import MasksSettings

T, H, W = 5, 24, 33


@pytest.fixture
def ids() -> np.ndarray:
    """Object ids (T, H, W): object 1 to the left, object 2 to the right, both moving down."""
    masks = np.zeros((T, H, W), np.uint8)
    for t in range(T):
        masks[t, t + 2 : t + 8, 3:9] = 1
        masks[t, t + 4 : t + 12, 20:31] = 2
    return masks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "masks" / "kitchen" / "seq" / "0"
    folder.mkdir(parents=True)
    return folder


def run(root: Path, *, files: str = "masks/{recording}/{view}", num_frames: int = T, **settings):
    source = view_source(num_frames, H, W, root=str(root))
    chosen = MasksSettings(source="files", files=files, **settings)
    return run_masks(np.zeros((num_frames, H, W), np.uint8), chosen, cuts=[2], source=source)


def foreground(item) -> np.ndarray:
    return unpack_masks(item["foreground"], W)


def write_palette_pngs(folder: Path, ids: np.ndarray, *, first: int = 0) -> None:
    """Write PNGs with a palette, as DEVA and SAM 2 do: the indices are the object ids."""
    for number, mask in enumerate(ids, start=first):
        image = Image.new("P", mask.shape[::-1])
        image.putdata(mask.ravel().tolist())
        image.putpalette([0, 0, 0, 236, 95, 103, 249, 145, 87] + [0] * (253 * 3))
        image.save(folder / f"{number:05d}.png")


def write_pngs(folder: Path, masks: np.ndarray, *, first: int = 0) -> None:
    for number, mask in enumerate(masks, start=first):
        Image.fromarray(mask).save(folder / f"{number:05d}.png")


def test_indices_of_palette_images_are_object_ids(tmp_path, folder, ids):
    write_palette_pngs(folder, ids)
    item = run(tmp_path)
    assert np.array_equal(foreground(item), ids > 0)
    assert item.attributes["num_missing"] == item.attributes["num_resized"] == item.attributes["num_unused"] == 0


def test_some_ids_can_be_chosen(tmp_path, folder, ids):
    write_palette_pngs(folder, ids)
    assert np.array_equal(foreground(run(tmp_path, ids=(2,))), ids == 2)


def test_color_images_give_ids_above_255(tmp_path, folder, ids):
    large = ids.astype(np.uint32) * 700
    color = np.stack([large % 256, large // 256 % 256, large // 65536], axis=-1).astype(np.uint8)
    write_pngs(folder, color)
    assert np.array_equal(foreground(run(tmp_path, ids=(1400,))), ids == 2)


def test_images_are_ordered_by_number_and_not_as_text(tmp_path, folder, ids):
    masks = np.repeat(ids, 3, axis=0)[:12]
    for number, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / f"frame_{number}.png")
    assert np.array_equal(foreground(run(tmp_path, num_frames=12)), masks > 0)


def test_numbers_may_start_at_one_or_at_first_number(tmp_path, folder, ids):
    write_pngs(folder, ids, first=1)
    assert np.array_equal(foreground(run(tmp_path)), ids > 0)
    for file in sorted(folder.iterdir(), reverse=True):
        file.rename(folder / f"{int(file.stem) + 99:05d}.png")
    assert np.array_equal(foreground(run(tmp_path, first_number=100)), ids > 0)


def test_one_npz_per_frame_is_read(tmp_path, folder, ids):
    for number, mask in enumerate(ids):
        np.savez_compressed(folder / f"left{number:04d}.npz", mask)
    assert np.array_equal(foreground(run(tmp_path)), ids > 0)


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "named", "npy", "bool"])
def test_one_array_per_view_is_read(tmp_path, ids, kind):
    path = tmp_path / "0.npz"
    key = ""
    if kind == "npz":
        np.savez(path, ids)
    elif kind == "compressed npz":
        np.savez_compressed(path, ids.astype(np.int64))
    elif kind == "named":
        np.savez(path, scores=np.zeros(3), person=ids)
        key = "person"
    elif kind == "npy":
        path = tmp_path / "0.npy"
        np.save(path, ids)
    else:
        np.savez(path, ids > 0)
    item = run(tmp_path, files="{view}" + path.suffix, key=key)
    assert np.array_equal(foreground(item), ids > 0)


def test_a_mask_video(tmp_path, ids):
    with av.open(str(tmp_path / "0.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=15)
        stream.width, stream.height, stream.pix_fmt = W, H, "gray"
        for mask in ids:
            image = av.VideoFrame.from_ndarray(np.where(mask > 0, 230, 12).astype(np.uint8), format="gray")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    assert np.array_equal(foreground(run(tmp_path, files="{view}.mkv")), ids > 0)
    with pytest.raises(UserError, match=r"masks.ids selects object ids, but .*0.mkv is a video"):
        run(tmp_path, files="{view}.mkv", ids=(1,))
    with pytest.raises(InputError, match=r"No mask for frame 5 (.|\n)*0.mkv has 5 frames\."):
        run(tmp_path, files="{view}.mkv", num_frames=6)


def test_one_image_is_used_for_every_frame(tmp_path, ids):
    Image.fromarray(ids[0]).save(tmp_path / "0.png")
    assert np.array_equal(foreground(run(tmp_path, files="{view}.png")), np.repeat(ids[:1] > 0, T, axis=0))


def test_a_pattern_with_a_wildcard_chooses_files(tmp_path, folder, ids):
    write_pngs(folder, ids)
    np.savez(folder / "0000.npz", ids[0])
    assert np.array_equal(foreground(run(tmp_path, files="masks/{recording}/{view}/*.png")), ids > 0)
    with pytest.raises(InputError, match=r"Two mask files are numbered 0: 0000.npz and 00000.png"):
        run(tmp_path)


def test_a_frame_without_a_mask_is_an_error_that_names_it(tmp_path, folder, ids):
    write_pngs(folder, ids)
    (folder / "00003.png").unlink()
    with pytest.raises(InputError) as caught:
        run(tmp_path)
    assert caught.value.frame == 3
    assert str(caught.value) == (
        f"No mask for frame 3 of recording 'kitchen/seq', view 0, which has 5 frames: {folder} has no file numbered 3. "
        "It has 4 masks, 00000.png … 00004.png.\n"
        "Add the mask, set masks.first_number if the numbers in the file names start at another number, "
        'or set masks.missing = "empty" to treat such frames as background.'
    )


def test_missing_masks_can_be_taken_as_empty_and_are_counted(tmp_path, folder, ids):
    write_pngs(folder, ids)
    (folder / "00003.png").unlink()
    item = run(tmp_path, missing="empty")
    assert foreground(item).any(axis=(1, 2)).tolist() == [True, True, True, False, True]
    assert item.attributes["num_missing"] == item.attributes["num_empty"] == 1


def test_more_masks_than_frames_are_counted(tmp_path, folder, ids):
    write_pngs(folder, ids)
    assert run(tmp_path, num_frames=3).attributes["num_unused"] == 2


def test_a_mask_of_another_size_is_an_error_that_names_both(tmp_path, folder, ids):
    write_pngs(folder, ids.repeat(2, axis=1).repeat(2, axis=2))
    with pytest.raises(InputError) as caught:
        run(tmp_path)
    assert str(caught.value) == (
        f"The mask of frame 0 of recording 'kitchen/seq', view 0 ({folder / '00000.png'}) is 66x48 (width x height); "
        "expected 33x24 (width x height), the size of the frames.\n"
        "Give masks of that size, or set masks.resize = true to scale them (nearest pixel)."
    )


def test_masks_of_another_size_are_scaled_on_request_and_counted(tmp_path, folder, ids):
    write_pngs(folder, ids.repeat(2, axis=1).repeat(2, axis=2))
    item = run(tmp_path, resize=True)
    assert np.array_equal(foreground(item), ids > 0)
    assert item.attributes["num_resized"] == T


def test_missing_masks_name_the_location(tmp_path):
    with pytest.raises(
        InputError, match=r"No masks for recording 'kitchen/seq', view 0: nothing exists at .*seq/0\.\n"
    ):
        run(tmp_path)


def test_an_empty_folder_is_no_masks(tmp_path, folder):
    with pytest.raises(InputError, match="nothing exists at"):
        run(tmp_path)


def test_a_pattern_with_an_unknown_part_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"The pattern 'masks/\{camera\}' of masks.files cannot be filled in"):
        run(tmp_path, files="masks/{camera}")


def test_a_pickle_in_an_npz_is_refused_unread(tmp_path):
    np.savez(tmp_path / "0.npz", np.array([{"run": "this"}], dtype=object))
    with pytest.raises(InputError, match=r"0.npz contains values of type object; expected bool or integers"):
        run(tmp_path, files="{view}.npz")


def test_a_declared_size_is_checked_before_it_is_read(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1, 10**9, 10**9)})
    with zipfile.ZipFile(tmp_path / "0.npz", "w") as archive:
        archive.writestr("arr_0.npy", header.getvalue())
    with pytest.raises(InputError, match=r"0.npz declares an array \(1, 1000000000, 1000000000\)"):
        run(tmp_path, files="{view}.npz")


def test_an_array_that_ends_early_is_damaged(tmp_path, ids):
    np.save(tmp_path / "0.npy", ids)
    content = (tmp_path / "0.npy").read_bytes()
    (tmp_path / "0.npy").write_bytes(content[: len(content) - H * W - 7])
    with pytest.raises(
        InputError, match=r"0.npy ends early: it declares an array \(5, 24, 33\) and contains less data"
    ):
        run(tmp_path, files="{view}.npy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("0.png", b"not an image", r"0.png cannot be read as an image"),
        ("0.npz", b"not a zip", r"0.npz is not an npz file, or it is damaged"),
        ("0.npy", b"not an array at all", r"0.npy does not hold a numpy array"),
        ("0.mp4", b"not a video", r"Mask video .*0.mp4 cannot be read"),
    ],
)
def test_damaged_files_are_problems_of_the_input(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        run(tmp_path, files="{view}" + Path(name).suffix)


def test_probabilities_are_refused(tmp_path, ids):
    np.savez(tmp_path / "0.npz", ids.astype(np.float32))
    with pytest.raises(InputError, match=r"type float32; .* Apply a threshold to probabilities first"):
        run(tmp_path, files="{view}.npz")


def test_a_wrong_key_lists_the_available_arrays(tmp_path, ids):
    np.savez(tmp_path / "0.npz", person=ids, chair=ids)
    with pytest.raises(
        InputError, match=r"has no array 'arr_0'. Its arrays: person, chair. Set masks.key to one of them"
    ):
        run(tmp_path, files="{view}.npz")


def test_the_fingerprint_follows_the_files(tmp_path, folder, ids):
    write_pngs(folder, ids)
    chosen = MasksSettings(source="files", files="masks/{recording}/{view}")
    source = view_source(T, H, W, root=str(tmp_path))
    before = FileMasks.reads_of_source(chosen, source)
    assert before == FileMasks.reads_of_source(chosen, source)
    Image.fromarray(ids[0] * 0).save(folder / "00000.png")
    assert FileMasks.reads_of_source(chosen, source) != before
