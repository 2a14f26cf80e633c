"""Readers of damaged files may only raise errors that name the file and the problem.

Each reader reads a small valid sample and then mutations of it, from a fixed seed. ACTIONPREP_FUZZ=N sets the number of
mutations of a sample (50), ACTIONPREP_FUZZ_SEED the seed.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import traceback
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pose_h5_files import netcdf_file, nwb_file
from pose_items import sequence
from scipy.io import savemat
from study_fakes import fake_video, view
from training_fakes import tiny_recipe

from actionprep.api import settings_models
from actionprep.datasets.annotation_formats.class_names import ClassNames
from actionprep.datasets.annotation_formats.lists import load_preset, preset_text
from actionprep.datasets.annotations import read_annotations
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.findings import Finding
from actionprep.datasets.npz_snippets import write_snippet
from actionprep.datasets.poses.formats import detect_format, read_poses
from actionprep.datasets.poses.formats.pose_npz import write_pose_npz
from actionprep.datasets.poses.formats.pyskl import write_pyskl
from actionprep.datasets.poses.formats.safe_npz import load_npz
from actionprep.datasets.poses.sequence import PoseItem
from actionprep.datasets.poses.skeletons import load_layout
from actionprep.datasets.recordings import Recording
from actionprep.datasets.segments import Segment
from actionprep.datasets.store.hdf5_store import write_hdf5
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.lock import BuildLock, LockClaim
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.zarr_store import Store
from actionprep.datasets.study import StudyFolder, StudySettings, init_study
from actionprep.datasets.tables import read_csv
from actionprep.datasets.video_layouts import discover
from actionprep.errors import ActionprepError, InputError
from actionprep.pipeline.mask_sources.files import _Array
from actionprep.pipeline.pose_backends.boxes import read_boxes
from actionprep.pipeline.quarantine import Quarantine
from actionprep.training.run import Run

ROUNDS = int(os.environ.get("ACTIONPREP_FUZZ", "50"))
SEED = int(os.environ.get("ACTIONPREP_FUZZ_SEED", "7"))

TOKENS = [
    *(
        b"\xff",
        b"\xc3",
        b"\0",
        b"\n",
        b"\r",
        b",",
        b";",
        b'"',
        b"'",
        b"[",
        b"]",
        b"{",
        b"}",
        b"(",
        b"=",
        b":",
        b"/",
        b"..",
    ),
    *(b"null", b"NaN", b"nan", b"inf", b"-1", b"1e999", b"9" * 400, b"true", b"None", b"\xef\xbb\xbf", b"0x1", b"1_0"),
    *(
        "٣".encode(),
        "²".encode(),
        "\ud800".encode("utf-8", "surrogatepass"),
        b"\xff\xfe",
        b"%s",
        b"\\u0000",
        b"\\ud800",
    ),
]
ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    1e300,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\0",
    "\ud800",
    [],
    [[]],
    [None],
    {},
    {"x": 1},
]


@dataclass(frozen=True)
class Reader:
    """A sample in a folder and its reader. `make` returns the file that is mutated."""

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]


def text(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    return make


def poses(format: str | None = None, **options: Any) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        detect_format(path)
        return list(read_poses(path, format, **options))

    return read


def npz_snippets(folder: Path) -> Path:
    path = folder / "a_length_100_sample_rate_1" / "train" / "x" / "1_a.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_snippet(path, {"video": np.zeros((3, 4, 4, 3), np.uint8), "time": np.arange(3.0), "view": np.array("0")})
    (path.parents[2] / "export.json").write_text(json.dumps({"labels": {"x": "an x"}, "settings": {"length_s": 0.1}}))
    return path


def hdf5_store(folder: Path) -> Path:
    store = Store(folder / "store", create=True)
    with store.write("tracks", "a", "0", fingerprint="f", provenance={"settings": {}}) as item:
        item.write("xy", numbers(3, 2), axes=("time", "xy"), unit="px")
    write_hdf5(folder / "sample.h5", store, store.items())
    return folder / "sample.h5"


def read_store(path: Path) -> None:
    """Read all items; `verify` reports damage of items."""
    for _ in open_store(path).verify():
        pass


def read_hdf5_store(path: Path) -> None:
    # HDF5 identifies open files by inode, and the mutations reuse one.
    copy = path.with_name(f"{uuid.uuid4().hex}.h5")
    shutil.copy(path, copy)
    try:
        read_store(copy)
    except ActionprepError as error:
        raise type(error)(str(error).replace(copy.name, path.name)) from error
    finally:
        copy.unlink()


def npz(**arrays: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez(folder / "sample.npz", **arrays)
        return folder / "sample.npz"

    return make


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 90, shape).astype(np.float32)


ROW = " ".join(["0.5"] * 11 + ["2"])
COCO = {
    "images": [{"id": 1, "file_name": "v/0001.jpg", "width": 90, "height": 90, "video_id": 3}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [1, 2, 2] * 17, "bbox": [0, 0, 5, 5], "track_id": 4}
    ],
    "categories": [{"id": 1, "name": "person", "keypoints": [f"k{at}" for at in range(17)]}],
}
OPENPOSE = {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": [1.0, 2.0, 0.5] * 25}]}
ACTIVITYNET = {"database": {"v": {"subset": "training", "annotations": [{"segment": [1, 2.5], "label": "wave"}]}}}
EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR MEDIA_URL="file:///a.mp4" TIME_ORIGIN="500"/></HEADER>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="10"/><TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="900"/></TIME_ORDER>
<TIER TIER_ID="hands"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
<ANNOTATION_VALUE>wave</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER></ANNOTATION_DOCUMENT>
"""
VIA = (
    "# Exported using VGG Image Annotator\n"
    "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata\n"
    '"1_a","[""a.webm""]",0,"[12.5,14.25]","[]","{""TEMPORAL-SEGMENTS"":""flip""}"\n'
)
VIA_OLD = (
    "Exported using VGG Image Annotator,,,\nfile_list,temporal_segment_start,temporal_segment_end,metadata\n"
    '"[""seq_1_view_5.webm""]",12.5,14.25,"{""TEMPORAL-SEGMENTS"":""flip""}"\n'
)
LAYOUT = """joints = ["head", "tail", "left_paw", "right_paw"]
limbs = [["head", "tail"], ["tail", "left_paw"], ["tail", "right_paw"]]
symmetric = [["left_paw", "right_paw"]]
root = "tail"
dimensions = 2
[derive]
head = [["left_paw", "right_paw"], ["tail"]]
"""
POSE_CSV = "recording,frame,person,joint,x,y,score\na,0,0,nose,1,2,0.5\na,1,0,left_eye,1,2,0.5\n"
MEDIAPIPE_CSV = "frame,landmark,x,y,z,visibility\n0,nose,0.1,0.2,0.3,0.4\n1,left_ankle,0.1,0.2,0.3,0.4\n"
JHMDB = {f"{part}_{name}": values for part in ("train", "test") for name, values in {
    "xy": numbers(4, 15, 2), "offsets": np.array([0, 4]), "label": np.array(["wave"]), "name": np.array(["clip"])}.items()}  # fmt: skip
MSR = {
    "joints_xyzc": numbers(3, 20, 4), "offsets": np.array([0, 3]), "action": np.array([1]), "subject": np.array([1]),
    "instance": np.array([1]),
}  # fmt: skip


def pose_item() -> PoseItem:
    made = sequence(image_size=(480, 640), time=np.arange(5) / 30)
    return PoseItem("a/b", made, label="wave", subject="s1", splits=("train",))


def own_npz(folder: Path) -> Path:
    write_pose_npz(folder / "sample.npz", pose_item())
    return folder / "sample.npz"


def pyskl(folder: Path) -> Path:
    write_pyskl(folder / "sample.pkl", [pose_item()])
    return folder / "sample.pkl"


def plain_pickle(folder: Path) -> Path:
    entry = {
        "frame_dir": "a",
        "label": 1,
        "total_frames": 3,
        "keypoint": [[[[1.0, 2.0]] * 17] * 3],
        "img_shape": (90, 90),
    }
    (folder / "sample.pkl").write_bytes(pickle.dumps({"split": {"train": ["a"]}, "annotations": [entry]}, protocol=0))
    return folder / "sample.pkl"


def jhmdb_mat(folder: Path) -> Path:
    place = folder / "joint_positions" / "wave" / "clip"
    place.mkdir(parents=True)
    savemat(place / "joint_positions.mat", {"pos_img": numbers(2, 15, 4), "pos_world": numbers(2, 15, 4)})
    return place / "joint_positions.mat"


def utkinect(folder: Path) -> Path:
    rows = [" ".join(map(str, [frame, *([1.5] * 60)])) for frame in (10, 12, 13)]
    (folder / "joints_s01_e02.txt").write_text("\n".join(rows))
    (folder / "actionLabel.txt").write_text("s01_e02\nwalk: 10 12\ncarry: NaN NaN\n")
    return folder / "actionLabel.txt"


NUMBERED_CSV = "\n".join(
    [",".join(f"{axis}{k}" for k in range(1, 34) for axis in "xyzv"), *[",".join(["0.5"] * 132)] * 2]
)
DLC_CSV = "scorer,s,s,s\nindividuals,a,a,a\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n0,1.5,2,0.9\n1,2,3,0.8\n"
SLEAP_CSV = "track,frame_idx,instance.score,A.x,A.y,A.score\nf,3,1,10,20,0.5\n,4,1,30,40,\n"
MMPOSE = {
    "meta_info": {"dataset_name": "fish", "keypoint_id2name": {"0": "eye", "1": "fin"}, "skeleton_links": [[0, 1]]},
    "instance_info": [
        {
            "frame_id": 1,
            "instances": [
                {"keypoints": [[5, 6], [7, 8]], "keypoint_scores": [0.5, 0.6], "bbox": [[1, 2, 9, 9]], "track_id": 3}
            ],
        }
    ],
}


def deeplabcut_h5(folder: Path) -> Path:
    path = folder / "sample.h5"
    columns = [("s", "nose", axis) for axis in ("x", "y", "likelihood")]
    levels = [["s"], ["nose"], ["likelihood", "x", "y"]]
    with h5py.File(path, "w") as file:
        for prefix in ("axis0", "block0_items"):
            for level, names in enumerate(levels):
                file[f"df/{prefix}_level{level}"] = np.array(names, "S12")
                file[f"df/{prefix}_label{level}"] = np.array([names.index(c[level]) for c in columns], np.int8)
        file["df/axis1"] = np.arange(2)
        file["df/block0_values"] = numbers(2, 3)
    return path


def sleap_h5(folder: Path) -> Path:
    path = folder / "sample.analysis.h5"
    with h5py.File(path, "w") as file:
        file["node_names"], file["edge_inds"] = np.array([b"a", b"b"]), np.array([[0, 1]])
        file["tracks"], file["point_scores"] = numbers(1, 2, 2, 3), numbers(1, 2, 3)
    return path


def sleap_slp(folder: Path) -> Path:
    path = folder / "sample.slp"
    skeleton = {"nodes": [{"id": 0}, {"id": 1}], "links": [{"source": 0, "target": 1}]}
    instance = "instance_id i8,instance_type u1,track i4,from_predicted i8,point_id_start u8,point_id_end u8"
    kinds = [part.split() for part in instance.split(",")]
    with h5py.File(path, "w") as file:
        about = file.create_group("metadata").attrs
        about["json"] = json.dumps({"nodes": [{"name": "a"}, {"name": "b"}], "skeletons": [skeleton]})
        about["format_id"] = 1.2
        frames = ("video", "frame_idx", "instance_id_start", "instance_id_end")
        file["frames"] = np.array([(0, 4, 0, 1)], [(name, "u8") for name in frames])
        file["instances"] = np.array([(0, 1, 0, -1, 0, 2)], [(name, kind) for name, kind in kinds])
        point = [("x", "f8"), ("y", "f8"), ("visible", "?")]
        file["points"] = np.zeros(0, point)
        file["pred_points"] = np.array([(5, 6, True, 0.5), (7, 8, True, 0.6)], [*point, ("score", "f8")])
    return path


def npy(folder: Path) -> Path:
    np.save(folder / "sample.npy", np.ones((3, 8, 9), np.uint8))
    return folder / "sample.npy"


def read_masks(path: Path) -> None:
    with _Array.open(path, "") as array:
        array.read()


def settings(folder: Path) -> Path:
    study = init_study(folder, StudySettings(), force=True, models=settings_models())
    return study.settings_file


def read_settings(path: Path) -> None:
    StudyFolder(path.parent).resolved(settings_models())


def csv_study(folder: Path) -> Path:
    for name in ("a", "b"):
        fake_video(folder / f"videos/{name}.mp4")
    (folder / "list.csv").write_text(
        "path,recording,view,label,subject,session,split,onset,offset\n"
        "a.mp4,r1,left,wave,s1,1,train,0.5,1.5\nb.mp4,r1,right,wave,s1,1,train,0.5,1.5\n"
    )
    (folder / "offsets.csv").write_text("view,offset,drift\nleft,0.5,10\n")
    (folder / "more.csv").write_text("recording,subject,split,trial\nr1,anna,test,3\n")
    return folder / "list.csv"


def read_csv_study(path: Path) -> None:
    chosen = StudySettings(layout="csv", csv="list.csv", offsets="offsets.csv", recordings="more.csv")
    found = discover(StudyFolder(path.parent), chosen)
    Catalog(tuple(found.recordings), tuple(found.views))


def lock(folder: Path) -> Path:
    lock = BuildLock(folder / ".lock")
    lock.acquire()
    return lock.path


def read_lock(path: Path) -> None:
    for use in (LockClaim(path, "other").require_held, BuildLock(path).acquire):
        try:
            use()
        except ActionprepError as error:
            print(error)  # the owner is named


def quarantine(folder: Path) -> Path:
    key = ItemKey("tracks", "walk/a", "0")
    Quarantine(folder).add(key, InputError("it is empty", frame=3, backend="PyAV"), fingerprint="f")
    return folder / "tracks/walk/a/0.json"


def read_quarantine(path: Path) -> None:
    kept = Quarantine(path.parents[3])
    for entry in [*kept, kept.get(ItemKey("tracks", "walk/a", "0"))]:
        if entry is not None:
            # The same calls as in plans and `status`.
            assert isinstance(entry.reason + entry.product + entry.recording + entry.view + entry.fingerprint, str)
            assert entry.frame is None or entry.frame >= 0
            assert entry.since - 1 < float("inf")


def run_json(folder: Path) -> Path:
    Run(folder).change(
        store="/store", store_digest="d", input_digest="d", snippets="default", labels=["wave"], views=["0"], seed=1,
        several_labels=False, versions={"numpy": "2"}, started="now", train_seconds=1.5,
        state={"complete": True, "phase": "refit", "epoch": 1},
        split={"by": "subject", "why": "so", "notes": [], "groups": {"train": ["s1"]}, "rows": {"train": [0], "val": [], "test": [1]},
               "seed": 1},
    )  # fmt: skip
    return folder / "run.json"


def read_run(path: Path) -> None:
    run = Run.open(path.parent)
    facts = run.facts
    assert isinstance(run.labels, tuple)
    assert isinstance(run.is_complete, bool)
    assert isinstance(facts["store"] + facts["snippets"], str)
    for part in ("train", "val", "test"):
        np.array(facts["split"]["rows"][part], np.int64)


def metrics(folder: Path) -> Path:
    rows = [{"phase": "validate", "epoch": at, "train_loss": 1.5, "val_accuracy": 0.25} for at in range(3)]
    Run(folder).write_metrics(rows)
    return folder / "metrics.csv"


def recipe(folder: Path) -> Path:
    (folder / "recipe.toml").write_text(tiny_recipe().to_toml())
    return folder / "recipe.toml"


def catalog(table: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        made = Catalog(
            (Recording("r", "anna", "s1", None, "train", {"trial": "3"}),),
            (view("r", "0", offset=1.5, warnings=("odd",)),),
            {"r": (Segment(0.1, 0.25, "wave", "hands", "ann"),)},
            (Finding("unreadable video", "videos/x.mp4", "it is empty"),),
        )
        made.write(folder)
        return folder / f"{table}.parquet"

    return make


CHARADES = "id,scene,actions,length\nYSKX3,Bedroom,c077 12.10 18.00;c001 5.4 7,31\n"
FERAL = {
    "class_names": {"0": "other", "1": "eat"},
    "labels": {"a.mp4": [0, 1, 1], "b.mp4": [[0, 1], [1, 0]]},
    "splits": {"train": ["a.mp4"]},
}
SIMBA = ",Nose_x,Low_prob_detections_0.75,Attack\n0,1.5,1,0\n1,1.5,1,1\n"
CLIPS = [{"id": "7", "template": "Holding [something]", "placeholders": ["x"]}]
TUBES = {"tubes": [{"path": "v/0.mp4", "label": ["wave", "clap"], "dim": [5, 8, 8]}]}
LISTS = {
    "ipn-hand": ("trainlistall.txt", "./frames/a_#1 1 1 17\n./frames/a_#1 14 18 55\n"),
    "nvgesture": ("a.lst", "path:./a/b depth:d:60:140 color:c:64:144 label:1\n"),
    "kinetics": ("val.csv", "label,youtube_id,time_start,time_end,split\nrun,0wR5jVB-WPk,417,427,val\n"),
    "ava": ("ava_val.csv", "_7oWZq_s_Sk,902,0.1,0.2,0.3,0.9,80,7\n_7oWZq_s_Sk,903,0.1,0.2,0.3,0.9,80,7\n"),
    "thumos": ("list.txt", "video_test_0000681 6 44.0 50.9\n"),
    "hmdb51": ("run_test_split1.txt", "a.avi 1\nb.avi 2\nc.avi 0\n"),
    "ucf101": ("trainlist01.txt", "Run/v_Run_g08_c01.avi 3\n"),
    "mmaction2-video": ("list.txt", "a.mp4 0 3\nb.mp4 1\n"),
    "mmaction2-rawframes-offset": ("list.txt", "imgs 2 5 127\n"),
}


def list_reader(format: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        return read_annotations(path, format=format)

    return read


READERS = {
    "annotations csv": Reader(
        text("labels.csv", "recording;onset;offset;label;layer\na;1.5;2,25;wave;hands\na;00:01:02.5;1:03;clap;\n"),
        read_annotations,
    ),
    "annotations charades": Reader(text("c_train.csv", CHARADES), read_annotations),
    "annotations feral": Reader(text("labels.json", json.dumps(FERAL)), read_annotations),
    "annotations ms-tcn": Reader(text("groundTruth/a.txt", "SIL\npour\npour\n"), read_annotations),
    "annotations one-hot": Reader(text("a.csv", ",background,run\n0,1,0\n1,0,1\n2,-1,-1\n"), read_annotations),
    "annotations simba-targets": Reader(text("a.csv", SIMBA), read_annotations),
    "annotations solomon": Reader(text("a.csv", "Time,Light,Do\n0,,\n0.04,On,run\n0.08,,run\n"), read_annotations),
    "annotations something-something": Reader(text("v2-train.json", json.dumps(CLIPS)), read_annotations),
    "annotations tinyvirat": Reader(text("tiny_train.json", json.dumps(TUBES)), read_annotations),
    **{f"annotations {name}": Reader(text(*sample), list_reader(name)) for name, sample in LISTS.items()},
    "class names": Reader(text("c.txt", "1 wave\n2 clap hands\n"), ClassNames.read),
    "list preset": Reader(text("mine.toml", preset_text("ava")), load_preset),
    "annotations activitynet": Reader(text("labels.json", json.dumps(ACTIVITYNET)), read_annotations),
    "annotations elan": Reader(text("labels.eaf", EAF), read_annotations),
    "annotations via": Reader(text("labels.csv", VIA), read_annotations),
    "annotations old via": Reader(text("labels.csv", VIA_OLD), read_annotations),
    "poses coco": Reader(text("sample.json", json.dumps(COCO)), poses("coco")),
    "poses coco with names": Reader(text("sample.json", json.dumps(COCO)), poses(skeleton="coco17")),
    "poses coco results": Reader(
        text("sample.json", json.dumps([{**COCO["annotations"][0], "score": 0.5}])), poses("coco")
    ),
    "poses openpose": Reader(
        text("v_000000000003_keypoints.json", json.dumps(OPENPOSE)), lambda path: poses("openpose")(path.parent)
    ),
    "poses pose-csv": Reader(text("sample.csv", POSE_CSV), poses("pose-csv", skeleton="coco17")),
    "poses pose-npz": Reader(own_npz, poses("pose-npz")),
    "poses pyskl": Reader(pyskl, poses("pyskl")),
    "poses pyskl of lists": Reader(plain_pickle, poses("pyskl")),
    "poses mediapipe npz": Reader(npz(landmarks=numbers(3, 33, 4), image_size=np.array([90, 90])), poses()),
    "poses mediapipe csv": Reader(text("sample.csv", MEDIAPIPE_CSV), poses(image_size=(90, 90))),
    "poses mediapipe numbered csv": Reader(text("sample.csv", NUMBERED_CSV), poses(image_size=(90, 90))),
    "poses deeplabcut csv": Reader(text("sample.csv", DLC_CSV), poses("deeplabcut")),
    "poses deeplabcut h5": Reader(deeplabcut_h5, poses("deeplabcut")),
    "poses sleap h5": Reader(sleap_h5, poses("sleap")),
    "poses sleap slp": Reader(sleap_slp, poses("sleap")),
    "poses sleap csv": Reader(text("sample.csv", SLEAP_CSV), poses("sleap")),
    "poses netcdf": Reader(lambda folder: netcdf_file(folder / "sample.nc"), poses("netcdf")),
    "poses nwb": Reader(lambda folder: nwb_file(folder / "sample.nwb"), poses("nwb")),
    "poses mmpose": Reader(text("sample.json", json.dumps(MMPOSE)), poses("mmpose")),
    "poses ntu": Reader(
        text("S001C002P003R002A050.skeleton", f"1\n1\n7 0 0 0 0 0 0 0 0 2\n25\n{(ROW + chr(10)) * 25}"), poses()
    ),
    "poses msr npz": Reader(npz(**MSR), poses("msr-action3d")),
    "poses msr text": Reader(
        text("a01_s01_e01_skeleton3D.txt", "1.5 2 3 4\n" * 40), lambda path: poses("msr-action3d")(path.parent)
    ),
    "poses utkinect labels": Reader(utkinect, lambda path: poses("utkinect")(path.parent)),
    "poses utkinect joints": Reader(
        lambda folder: utkinect(folder).with_name("joints_s01_e02.txt"), lambda path: poses("utkinect")(path.parent)
    ),
    "poses jhmdb npz": Reader(npz(**JHMDB), poses("jhmdb")),
    "poses jhmdb mat": Reader(jhmdb_mat, lambda path: poses("jhmdb")(path.parents[3])),
    "boxes": Reader(
        text("boxes.csv", "frame,left,top,right,bottom,score\n0,1,1,5,5,0.5\n"), lambda path: read_boxes(path, 4)
    ),
    "npz": Reader(npz(a=numbers(3, 4), b=np.array(["x", "yz"])), load_npz),
    "npz snippets": Reader(npz_snippets, lambda path: read_store(path.parents[2])),
    "npz snippets json": Reader(
        lambda folder: npz_snippets(folder).parents[2] / "export.json", lambda path: read_store(path.parent)
    ),
    "hdf5 store": Reader(hdf5_store, read_hdf5_store),
    "masks npy": Reader(npy, read_masks),
    "masks npz": Reader(npz(masks=np.ones((3, 8, 9), np.uint8)), read_masks),
    "table": Reader(text("t.csv", 'a;b;c\n1;"x ""y"" z";3\n4;5\n'), read_csv),
    "table of recordings": Reader(csv_study, read_csv_study),
    "table of offsets": Reader(lambda folder: csv_study(folder).with_name("offsets.csv"), read_csv_study),
    "table of subjects": Reader(lambda folder: csv_study(folder).with_name("more.csv"), read_csv_study),
    "settings": Reader(settings, read_settings),
    "skeleton layout": Reader(text("layout.toml", LAYOUT), load_layout),
    "lock": Reader(lock, read_lock),
    "quarantine": Reader(quarantine, read_quarantine),
    "run.json": Reader(run_json, read_run),
    "metrics.csv": Reader(metrics, lambda path: Run(path.parent).metrics),
    "recipe.toml": Reader(recipe, lambda path: Run(path.parent).recipe),
    **{
        f"catalog {table}": Reader(catalog(table), lambda path: Catalog.read(path.parent))
        for table in ("recordings", "views", "segments", "findings")
    },
}


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Damage a few bytes, or cut the data."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 2:
            del data[at : at + chance.randint(1, 40)]
        elif kind == 3:
            data[at:at] = data[at : at + chance.randint(1, 40)]
        elif kind == 4:
            data[at : at + chance.choice((0, 0, 1, 4))] = chance.choice(TOKENS)
        elif kind == 5:
            end = min(len(data), at + chance.randint(1, 8))
            data[at:end] = bytes(end - at)
        elif chance.random() < 0.3:
            del data[at:]
    return bytes(data)


def with_odd_value(content: bytes, chance: random.Random) -> bytes:
    """Replace or remove a value of a JSON document."""
    document = json.loads(content)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(document)
    node, key = chance.choice(places)
    if chance.random() < 0.25:
        del node[key]
    else:
        node[key] = chance.choice(ODD)
    return json.dumps(document).encode()


def with_odd_member(content: bytes, chance: random.Random) -> bytes:
    """Mutate a member of a zip file and keep the archive valid."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = chance.choice(list(members))
    # Errors of npy readers come mostly from the header.
    members[name] = mutated(members[name][:128], chance) + members[name][128:]
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for other, data in members.items():
            archive.writestr(other, data)
    return sink.getvalue()


def variants(content: bytes, path: Path, chance: random.Random) -> bytes:
    if path.suffix in (".json", ".lock") or path.name == ".lock":
        return (with_odd_value if chance.random() < 0.6 else mutated)(content, chance)
    if path.suffix == ".npz":
        return (with_odd_member if chance.random() < 0.6 else mutated)(content, chance)
    return mutated(content, chance)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
def test_reader_raises_only_own_errors(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    path = reader.make(tmp_path)
    content = path.read_bytes()
    reader.read(path)
    chance = random.Random(f"{SEED} {name}")
    foreign: dict[str, bytes] = {}
    silent = 0
    for _ in range(ROUNDS):
        damaged = variants(content, path, chance)
        path.write_bytes(damaged)
        try:
            reader.read(path)
        except ActionprepError as error:
            silent += not str(error).strip()
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            foreign.setdefault(f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"[:300], damaged[:300])
    assert silent == 0
    assert not foreign, f"{len(foreign)} foreign errors: " + "\n".join(
        f"{what}\n  {data!r}" for what, data in foreign.items()
    )
