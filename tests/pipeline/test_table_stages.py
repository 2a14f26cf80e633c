"""Tests of the stages snippets and split, which make tables from the catalog."""

from __future__ import annotations

import numpy as np
import pytest
from study_fakes import catalog, view

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.products.snippets import SnippetTable
from actionprep.datasets.products.split import stored_parts
from actionprep.datasets.recordings import Recording
from actionprep.datasets.segments import Segment
from actionprep.datasets.splits import apply_parts
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.pipeline.snippets import Snippets, SnippetSettings, snippets_for
from actionprep.pipeline.split import Split, SplitSettings


@pytest.fixture
def study() -> Catalog:
    recordings = [
        Recording(f"{label}/{number}", f"s{number % 3}", label=label) for label in "ab" for number in range(6)
    ]
    return catalog(*recordings, Recording("long", "s0"), segments={"long": (Segment(0.5, 3.0, "a"),)})


def built(tmp_path, stage, settings, study):
    store = Store(tmp_path / "store", create=True)
    with store.write(stage.name, settings.name, fingerprint="f", provenance={}) as item:
        stage.build(settings, study, store, item)
    return store.item(stage.name, settings.name)


def test_a_stored_table_reads_back(tmp_path, study):
    settings = SnippetSettings(length=1000, stride=500, background="none", name="coarse")
    item = built(tmp_path, Snippets, settings, study)
    made, read = snippets_for(settings, study), SnippetTable.read(item)
    for name in ("recording", "onset", "offset", "label", "target", "coverage", "iou", "segment_share"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
        assert getattr(read, name).dtype == getattr(made, name).dtype
    assert read.attributes() == made.attributes()
    assert item["onset"].unit == "s"
    assert item["coverage"].axes == ("snippet", "label")
    assert read.settings["rule"] == "coverage"
    assert read.settings["length_s"] == 1.0


def test_settings_in_milliseconds_and_the_share_called_iou():
    settings = SnippetSettings(length=1000, iou=0.5)
    result = catalog(Recording("a"), segments={"a": (Segment(0.5, 8.0, "wave"),)})
    table = snippets_for(settings, result)
    assert table.label.tolist() == [*[0] * 8, -1, -1]


def test_snippets_length_in_frames_of_the_video():
    study = catalog(Recording("a"), segments={"a": (Segment(0.5, 8.0, "wave"),)}, fps=20.0)
    table = snippets_for(SnippetSettings(length_frames=30, stride_frames=10), study)
    assert table.settings["length_s"] == pytest.approx(1.5)
    assert table.onset == pytest.approx(np.arange(0, 8.6, 0.5))


def test_snippets_length_in_frames_of_a_rate():
    study = catalog(Recording("a"), segments={"a": (Segment(0.5, 8.0, "wave"),)}, fps=20.0)
    table = snippets_for(SnippetSettings(length_frames=39, frame_rate=29.97), study)
    assert table.settings["length_s"] == pytest.approx(39 / 29.97)


def test_snippets_length_in_frames_of_two_rates():
    views = (view("a", fps=25.0), view("b", fps=30.0))
    study = Catalog((Recording("a", label="x"), Recording("b", label="x")), views, {})
    with pytest.raises(UserError) as error:
        snippets_for(SnippetSettings(length_frames=10), study)
    assert str(error.value) == (
        "Views have different frame rates, such as 25 (a/0) and 30 (b/0) frames per second, so a length in frames has no "
        "single duration. Set --frame-rate, or give the length in ms."
    )
    assert len(snippets_for(SnippetSettings(length_frames=10, frame_rate=20), study)) == 40


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"length": 1000, "length_frames": 20}, "give the length in ms"),
        ({"length": 1000, "stride": 100, "stride_frames": 20}, "give the stride in ms"),
        ({"stride_frames": 20}, "a stride needs a length"),
        ({"length": 1000, "frame_rate": 20}, "frame_rate needs length_frames or stride_frames"),
    ],
)
def test_snippet_settings_in_frames_that_conflict(values, problem):
    with pytest.raises(UserError, match=problem):
        SnippetSettings.read(values, where="actionprep snippets")


def test_later_settings_leave_records_alone():
    assert "length_frames" not in SnippetSettings(length=1000).recorded()
    assert SnippetSettings(length=1000).recorded()["length"] == 1000
    assert SnippetSettings(length_frames=30).recorded()["length_frames"] == 30


def test_what_a_table_depends_on(study):
    before = Snippets.depends_on(SnippetSettings(), study)
    assert before == Snippets.depends_on(SnippetSettings(), study)
    moved = Catalog(study.recordings, (*study.views[:-1], view("long", offset=0.1)), study.segments)
    assert Snippets.depends_on(SnippetSettings(), moved) != before
    other = Catalog(study.recordings, study.views, {"long": (Segment(0.5, 3.1, "a"),)})
    assert Snippets.depends_on(SnippetSettings(), other) != before


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match=r"ignore_from \(0.6\) must lie below iou \(0.5\)"):
        SnippetSettings.read({"length": 1000, "ignore_from": 0.6}, where="actionprep snippets")
    with pytest.raises(UserError, match="a stride needs a length"):
        SnippetSettings.read({"stride": 500}, where="actionprep snippets")
    with pytest.raises(UserError, match="give either folds, leave_one_out, or named groups"):
        SplitSettings.read({"folds": 3, "leave_one_out": True}, where="actionprep split")


@pytest.mark.parametrize("name", ["train_groups", "val_groups", "test_groups"])
def test_a_column_of_parts_and_named_groups_exclude_each_other(name):
    with pytest.raises(UserError, match="by = column reads the part of each recording from a column"):
        SplitSettings.read({"by": "column", name: ["s1"]}, where="actionprep split")


def test_a_stored_split_holds_for_windows_of_any_length(tmp_path, study):
    settings = SplitSettings(by="subject", train=0.4, val=0.3, test=0.3)
    item = built(tmp_path, Split, settings, study)
    [parts] = stored_parts(item)
    assert len(set(parts.values())) == 3
    table = snippets_for(SnippetSettings(length=1000), study)
    split = apply_parts(table, parts)
    assert len(split.train) + len(split.val) + len(split.test) == int(table.used.sum())
    assert {tuple(sorted(groups)) for groups in item.attributes["groups"]} == {("test", "train", "val")}


def test_leaving_one_out_is_stored_fold_by_fold(tmp_path, study):
    item = built(tmp_path, Split, SplitSettings(by="subject", leave_one_out=True, val=0.0, name="loso"), study)
    folds = stored_parts(item)
    assert len(folds) == 3
    assert [groups["test"] for groups in item.attributes["groups"]] == [["s0"], ["s1"], ["s2"]]
    for fold in folds:
        assert set(fold.values()) == {"train", "test"}


def test_split_results_count_classes_in_parts(tmp_path, study):
    item = built(tmp_path, Split, SplitSettings(by="subject", train=0.4, val=0.3, test=0.3), study)
    [parts] = stored_parts(item)
    table = Split.results(item, study)
    assert table.columns == ("class", "train", "val", "test")
    for label, *counts in table.rows[:-1]:
        of_label = [id for id in parts if id.startswith(f"{label}/") or (id, label) == ("long", "a")]
        assert counts == [sum(parts[id] == part for id in of_label) for part in ("train", "val", "test")]
    assert table.rows[-1] == ("(recordings)", *(list(parts.values()).count(part) for part in ("train", "val", "test")))


@pytest.mark.parametrize(
    ("folds", "columns"), [(3, ("class", "fold 1", "fold 2", "fold 3")), (12, ("class", "a", "b"))]
)
def test_split_results_of_folds(tmp_path, study, folds, columns):
    settings = SplitSettings(by="recording", folds=folds, val=0.0, name="folds")
    table = Split.results(built(tmp_path, Split, settings, study), study)
    assert table.columns[: len(columns)] == columns
    counts = np.array([row[1:] for row in table.rows])
    # Every label or segment is in one test part: 6 + 1 of class a, 6 of class b, 13 recordings.
    assert counts.sum(axis=1 if folds == 3 else 0).tolist() == [7, 6, 13]


def test_snippets_results_count_windows(tmp_path):
    segments = (Segment(0.0, 2.0, "wave"), Segment(2.0, 2.3, "clap"), Segment(8.0, 9.0, "bad", layer="broken"))
    times = np.delete(np.arange(250) / 25, np.arange(100, 150))  # no frame from 4 to 6 s
    gap = view("x", frame_times=times, num_frames=len(times))
    result = Catalog((Recording("x"),), (gap,), {"x": segments})
    settings = SnippetSettings(length=1000, ignore_from=0.2, exclude_layers=("broken",))
    item = built(tmp_path, Snippets, settings, result)
    assert Snippets.results(item, result).rows == (
        ("clap", 0),
        ("wave", 2),
        ("(without label)", 4),
        ("(ignored: in an excluded layer)", 1),
        ("(ignored: in the ignore band)", 1),
        ("(dropped: without frame)", 2),
        ("(recordings)", 1),
    )
