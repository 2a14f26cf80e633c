"""Scanning a study: every video is read once; unreadable files and other findings are reported."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from study_fakes import FakeProbe, fake_video, new_study

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.names_to_ids import NOT_TEXT
from actionprep.datasets.scan import ScanReport, findings_file, scan
from actionprep.datasets.segments import Segment
from actionprep.datasets.study import StudyFolder
from actionprep.errors import SetupError, UserError


def scanned(folder: StudyFolder, probe: FakeProbe | None = None, **options: object) -> ScanReport:
    return scan(folder, probe=probe or FakeProbe(), workers=2, **options)  # type: ignore[arg-type]


def findings(report: ScanReport) -> list[str]:
    return [str(finding) for finding in report.findings]


@pytest.fixture
def clips(tmp_path) -> StudyFolder:
    for name in ("wave/a.mp4", "wave/b.mp4", "clap/c.mp4", "clap/d.mp4"):
        fake_video(tmp_path / "videos" / name)
    return new_study(tmp_path)


def test_a_scan_fills_the_catalog(clips):
    seen = []
    report = scanned(clips, progress=lambda sofar: seen.append((sofar.done, sofar.total)))
    assert findings(report) == []
    catalog = Catalog.read(clips.catalog)
    assert catalog == report.catalog
    view = catalog.view("wave/a", 0)
    assert (view.codec, view.width, view.num_frames, view.status) == ("h264", 64, 50, "ok")
    assert view.fps == pytest.approx(25.0)
    np.testing.assert_allclose(view.times, np.arange(50) / 25)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_unchanged_files_are_not_read_again(clips):
    first = scanned(clips)
    fake_video(clips.root / "videos/wave/b.mp4", frames=60)
    probe = FakeProbe()
    second = scanned(clips, probe)
    assert probe.read == ["b.mp4"]
    assert (second.num_probed, second.num_reused) == (1, 3)
    assert second.catalog.view("wave/b", 0).num_frames == 60
    assert second.catalog.view("wave/a", 0) == first.catalog.view("wave/a", 0)
    again = FakeProbe()
    scanned(clips, again, again=True)
    assert len(again.read) == 4


@pytest.mark.parametrize("content", [b"", b"some text", bytes(1000)])
def test_scan_reports_an_unreadable_file_and_reads_the_others(clips, content):
    path = clips.root / "videos/wave/b.mp4"
    path.write_bytes(content)
    report = scanned(clips)
    assert [(view.recording, view.reason) for view in report.unreadable] == [("wave/b", "holds no video")]
    assert "unreadable video: videos/wave/b.mp4: holds no video" in findings(report)
    assert len(report.catalog.select_views().views) == 3
    assert path.read_bytes() == content


def test_a_file_without_permission_or_a_dead_link_is_unreadable(clips):
    (clips.root / "videos/wave/e.mp4").symlink_to(clips.root / "gone.mp4")
    assert (
        findings(scanned(clips))[0]
        == "unreadable video: videos/wave/e.mp4: cannot be opened: No such file or directory"
    )


def test_scan_reports_warnings_of_a_video(clips):
    fake_video(clips.root / "videos/wave/b.mp4", warnings=("the header states 100 frames and the file holds 50",))
    assert findings(scanned(clips)) == [
        "video warning: videos/wave/b.mp4: the header states 100 frames and the file holds 50"
    ]


def test_scan_reports_a_duplicate_video(clips):
    fake_video(clips.root / "videos/wave/a.mp4", name="same")
    fake_video(clips.root / "videos/clap/c.mp4", name="same")
    assert findings(scanned(clips)) == [
        "same video twice: videos/clap/c.mp4: has the same bytes as videos/wave/a.mp4; splits keep them together"
    ]


def test_scan_reports_small_classes_and_unlabeled_videos(clips):
    (clips.root / "videos/wave/b.mp4").rename(clips.root / "videos/b.mp4")
    assert findings(scanned(clips)) == [
        "video without label: b: has neither a label nor segments",
        "class with one sample: wave/a: class 'wave' has one sample only: it cannot be both trained and tested",
    ]


def test_segments_are_checked_against_the_videos(tmp_path):
    fake_video(tmp_path / "videos/a/cam0.mp4")
    fake_video(tmp_path / "videos/b/cam0.mp4")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/all.csv").write_text(
        "recording,onset,offset,label\na,0.5,1,wave\nb,0,1,wave\na,1,0.5,wave\nb,3,4,wave\nc,0,1,wave\n"
    )
    # A file without a recording column belongs to the recording in its file name.
    (tmp_path / "labels/b.csv").write_text("onset,offset,label\n1,1.5,clap\n0,0.5,clap\n")
    report = scanned(new_study(tmp_path, layout="views", segments=("labels",)))
    assert findings(report) == [
        "unusable segment: labels/all.csv:4: it ends at 0.5 s, before it starts at 1 s",
        "unusable segment: labels/all.csv:5: 3.000 to 4.000 s lies outside recording 'b', which runs from 0.000 to "
        "2.000 s",
        "labels for an absent video: labels/all.csv:6: 1 segment of 'c', which is no recording of this study",
    ]
    assert report.num_unusable == 3
    assert report.catalog.segments_of("b") == (
        Segment(0, 0.5, "clap"),
        Segment(0, 1, "wave"),
        Segment(1, 1.5, "clap"),
    )


def test_scan_reports_misaligned_views_and_applies_offsets(tmp_path):
    fake_video(tmp_path / "videos/a/cam0.mp4", start=100.0)
    fake_video(tmp_path / "videos/a/cam1.mp4", start=103.0)
    assert scanned(new_study(tmp_path, layout="views")).catalog.view("a", 1).times[0] == 0.0
    report = scanned(new_study(tmp_path, layout="views", clock="container"))
    assert [view.times[0] for view in report.catalog.views] == [100.0, 103.0]
    assert findings(report)[1] == (
        "views not aligned: a: the views have no common time ('0' 100.000 to 101.960 s, '1' 103.000 to 104.960 s)"
    )
    (tmp_path / "clocks.csv").write_text("view,offset\n1,-3\n")
    report = scanned(new_study(tmp_path, layout="views", clock="container", offsets="clocks.csv"))
    assert [view.times[0] for view in report.catalog.views] == [100.0, 100.0]
    assert [finding.kind for finding in report.findings] == ["video without label"]


@pytest.mark.parametrize(("clock", "time"), [("file", 1.5), ("first-frame", 0.0), ("container", 4.5)])
def test_scan_clock_sets_time_of_first_frame(tmp_path, clock, time):
    fake_video(tmp_path / "videos/a/cam0.mp4", start=4.5, file_start=3.0)
    report = scanned(new_study(tmp_path, layout="views", clock=clock))
    assert report.catalog.view("a", 0).times[0] == time


def test_scan_clock_defaults_to_file(tmp_path):
    fake_video(tmp_path / "videos/a/cam0.mp4", start=4.5, file_start=3.0)
    assert scanned(new_study(tmp_path, layout="views")).catalog.view("a", 0).times[0] == 1.5


def test_scan_reads_videos_of_older_catalogs_again(tmp_path):
    fake_video(tmp_path / "videos/a/cam0.mp4", start=4.5, file_start=3.0)
    scanned(new_study(tmp_path, layout="views"))
    path = tmp_path / "catalog/views.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns("file_start"), path)
    report = scanned(new_study(tmp_path, layout="views"))
    assert (report.num_probed, report.num_reused) == (1, 0)
    assert report.catalog.view("a", 0).file_start == 3.0


def test_two_recordings_with_one_id_stop_before_any_reading(clips):
    fake_video(clips.root / "videos/wave/a.avi")
    probe = FakeProbe()
    with pytest.raises(UserError, match=r"Two recordings have the id 'wave/a'"):
        scanned(clips, probe)
    assert probe.read == []


def test_interrupted_scan_resumes(clips):
    class InterruptedRunError(FakeProbe):
        def __call__(self, path):
            if path.name == "b.mp4":
                raise KeyboardInterrupt
            return super().__call__(path)

    first = InterruptedRunError()
    with pytest.raises(KeyboardInterrupt):
        scan(clips, probe=first, workers=1)
    assert not (clips.catalog / "recordings.parquet").exists()
    second = FakeProbe()
    report = scanned(clips, second)
    assert "b.mp4" in second.read
    assert report.num_reused >= 1
    assert {view.num_frames for view in report.catalog.views} == {50}
    assert not list(clips.catalog.glob(".*"))


def test_a_missing_backend_stops_the_scan_and_blames_no_video(clips):
    def probe(path: Path) -> None:
        raise SetupError("PyAV is not installed.")

    with pytest.raises(SetupError, match=r"PyAV is not installed"):
        scan(clips, probe=probe, workers=2)  # type: ignore[arg-type]


def test_scan_replaces_a_damaged_catalog(clips):
    scanned(clips)
    (clips.catalog / "views.parquet").write_bytes(b"nothing")
    assert scanned(clips).num_probed == 4


def test_scan_renames_former_catalog_folder(clips):
    first = scanned(clips)
    clips.catalog.rename(clips.root / "catalogue")
    assert Catalog.read(clips.catalog) == first.catalog
    second = scanned(clips)
    assert second.num_reused == 4
    assert clips.catalog == clips.root / "catalog"
    assert not (clips.root / "catalogue").exists()


def test_scan_hashes_files_with_other_times(clips):
    scanned(clips)
    path = clips.root / "videos/wave/b.mp4"
    path.touch()
    probe = FakeProbe()
    second = scanned(clips, probe)
    assert probe.read == []
    assert (second.num_probed, second.num_reused) == (0, 4)
    assert second.catalog.view("wave/b", 0).mtime_ns == path.stat().st_mtime_ns


def test_scan_reads_files_with_restored_times(clips):
    scanned(clips)
    path = clips.root / "videos/wave/b.mp4"
    before = path.stat()
    text = path.read_text()
    path.write_text(text.replace('"fps": 25.0', '"fps": 50.0'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    probe = FakeProbe()
    assert scanned(clips, probe).catalog.view("wave/b", 0).fps == pytest.approx(50.0)
    assert probe.read == ["b.mp4"]


def test_scan_writes_all_findings_with_lines(clips):
    (clips.root / "labels.csv").write_text("recording,onset,offset,label\nwave/a,1,0,x\nwave/a,5,4,x\n")
    report = scanned(new_study(clips.root, segments=("labels.csv",)))
    with open(findings_file(clips), newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["kind", "where", "line", "message"]
    assert len(rows) == len(report.findings) + 1
    assert ["unusable segment", "labels.csv", "3", "it ends at 4 s, before it starts at 5 s"] in rows


def test_scan_reports_labels_that_differ_in_case_or_spaces(tmp_path):
    for name in ("Walk/1", "walk/2", "side step/3", "sidestep/4", "run/5", "run/6"):
        fake_video(tmp_path / "videos" / f"{name}.mp4")
    similar = [entry.message for entry in scanned(new_study(tmp_path)).findings if entry.kind == "similar labels"]
    assert similar == [
        "classes 'Walk' (1), 'walk' (1) differ in case or spaces only; they are kept apart",
        "classes 'side step' (1), 'sidestep' (1) differ in case or spaces only; they are kept apart",
    ]


def test_scan_brings_labels_to_one_unicode_form(tmp_path):
    fake_video(tmp_path / "videos/a.mp4")
    fake_video(tmp_path / "videos/b.mp4")
    rows = "recording,onset,offset,label\na,0,1,caf\u00e9\nb,0,1,cafe\u0301\n"
    (tmp_path / "s.csv").write_text(rows, encoding="utf-8")
    report = scanned(new_study(tmp_path, layout="views", pattern="{recording}.mp4", segments=("s.csv",)))
    assert report.catalog.labels == ("caf\u00e9",)


def test_scan_takes_splits_of_annotation_files(tmp_path):
    for name in "abc":
        fake_video(tmp_path / f"videos/{name}.mp4")
    database = {
        name: {"subset": subset, "annotations": [{"segment": [0, 1], "label": "wave"}]}
        for name, subset in (("a", "training"), ("b", "validation"), ("c", "withheld"))
    }
    (tmp_path / "anet.json").write_text(json.dumps({"database": database}))
    settings = {"layout": "views", "pattern": "{recording}.mp4", "segments": ("anet.json",)}
    report = scanned(new_study(tmp_path, **settings))
    assert [recording.split for recording in report.catalog.recordings] == ["train", "val", None]
    assert Catalog.read(tmp_path / "catalog").recordings == report.catalog.recordings
    assert findings(report) == [
        "unknown split: anet.json: split 'withheld' of 1 recording is none of train, val and test; it is not used"
    ]
    (tmp_path / "rec.csv").write_text("recording,split\na,test\n")
    report = scanned(new_study(tmp_path, recordings="rec.csv", **settings))
    assert report.catalog.recording("a").split == "test"
    assert (
        "conflicting labels: anet.json: recording 'a' has split 'test' and here 'train'; the first is used"
        in findings(report)
    )
    (tmp_path / "s.csv").write_text("recording,onset,offset,label,split\na,0,1,x,train\na,1,2,x,test\n")
    with pytest.raises(UserError, match=r"^s.csv:2 and s.csv:3 contradict each other: recording 'a' has split 'train'"):
        scanned(new_study(tmp_path, **{**settings, "segments": ("s.csv",)}))


def test_annotation_files_in_folders_of_other_recordings(tmp_path):
    fake_video(tmp_path / "videos/siteA/take_1.mp4")
    for site in ("siteA", "siteB"):
        (tmp_path / "notes" / site).mkdir(parents=True)
        (tmp_path / f"notes/{site}/take_1.csv").write_text(f"onset,offset,label\n0,1,{site}\n")
    settings = {"layout": "views", "pattern": "{recording}.mp4", "segments": ("notes",)}
    report = scanned(new_study(tmp_path, **settings))
    assert report.catalog.labels == ("siteA",)
    assert (
        "labels for an absent video: notes/siteB/take_1.csv:2: 1 segment of (the file names no recording), which is no "
        "recording of this study"
    ) in findings(report)
    # Folders of annotators are unrelated to folders of recordings.
    (tmp_path / "notes/siteA").rename(tmp_path / "notes/anna")
    assert scanned(new_study(tmp_path, **settings)).catalog.labels == ("siteA", "siteB")


def test_scan_measures_the_alignment_of_pairs(tmp_path):
    for camera, start in enumerate((0.0, 0.0, 9.0)):
        fake_video(tmp_path / f"videos/a/cam{camera}.mp4", start=start)
    report = scanned(new_study(tmp_path, layout="views", clock="container"))
    read = Catalog.read(tmp_path / "catalog")
    assert read.alignment == report.catalog.alignment
    assert read.alignment.misaligned == {"a": (("0", "2"), ("1", "2"))}


def test_names_that_are_not_text_are_reported(clips):
    for name in (b"videos/wave/lat\xe9in.mp4", b"videos/caf\xe9/e.mp4"):
        path = clips.root / os.fsdecode(name)
        fake_video(path)
    report = scanned(clips)
    assert [recording.id for recording in report.catalog.recordings] == ["clap/c", "clap/d", "wave/a", "wave/b"]
    reported = [str(entry) for entry in Catalog.read(clips.catalog).findings]
    assert reported == [
        rf"file not used: videos/caf\xe9: {NOT_TEXT}",
        rf"file not used: videos/wave/lat\xe9in.mp4: {NOT_TEXT}",
    ]


def test_names_that_are_not_text_among_matches(tmp_path):
    for name in (b"videos/s1/cam0.mp4", b"videos/s1/cam\xff.mp4"):
        fake_video(tmp_path / os.fsdecode(name))
    report = scanned(new_study(tmp_path, layout="views", pattern="{recording}/cam{view}.mp4"))
    assert [(view.recording, view.id) for view in report.catalog.views] == [("s1", "0")]
    assert [entry.where for entry in Catalog.read(tmp_path / "catalog").findings if entry.kind == "file not used"] == [
        r"videos/s1/cam\xff.mp4"
    ]


@pytest.mark.parametrize(
    ("path", "id"),
    [
        (".cache/a.mp4", "cache/a"),
        ("x/..b/a.mp4", "x/b/a"),
        ("__raw/a.mp4", "_raw/a"),
        ("zarr.json/a.mp4", "zarr_json/a"),
        ("a\\b.mp4", "a_b"),
    ],
)
def test_path_that_is_no_id_gets_one(tmp_path, path, id):
    fake_video(tmp_path / "videos" / path)
    (tmp_path / "list.csv").write_text(f"path,label\n{path},wave\n")
    report = scanned(new_study(tmp_path, layout="csv", csv="list.csv"))
    [recording] = report.catalog.recordings
    assert (recording.id, recording.label) == (id, "wave")
    assert report.catalog.views[0].path == f"videos/{path}"


def test_path_outside_below_a_hidden_folder(tmp_path):
    fake_video(tmp_path / "data/.disk/a.mp4")
    (tmp_path / "study/videos").mkdir(parents=True)
    (tmp_path / "study/list.csv").write_text(f"path\n{tmp_path}/data/.disk/a.mp4\n")
    report = scanned(new_study(tmp_path / "study", layout="csv", csv="list.csv"))
    assert report.catalog.recordings[0].id.endswith("data/disk/a")


def test_class_folder_with_reserved_name(tmp_path):
    fake_video(tmp_path / "videos/__raw/a.mp4")
    assert scanned(new_study(tmp_path)).catalog.recordings[0].id == "_raw/a"
