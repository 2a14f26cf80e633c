"""Labels of windows, and the table of snippets."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_fakes import catalog, view

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.products.snippets import IGNORED, NO_LABEL
from actionprep.datasets.recordings import Recording
from actionprep.datasets.segments import Segment
from actionprep.datasets.snippets import LabelRule, make_snippets
from actionprep.errors import UserError


def annotated(*segments: Segment, seconds: float = 10.0) -> Catalog:
    return catalog(Recording("a"), segments={"a": segments}, seconds=seconds)


def labels_of(table) -> list[str | None]:
    return [table.labels[code] if code >= 0 else None for code in table.label]


def test_a_window_deep_inside_a_long_action_is_positive():
    table = make_snippets(annotated(Segment(2.0, 8.0, "wave")), length_s=1.0)
    assert labels_of(table) == [None, None, *["wave"] * 6, None, None]
    assert table.coverage[4, 0] == 1.0
    assert table.iou[4, 0] == pytest.approx(1 / 6)


def test_a_window_exactly_at_the_threshold_is_positive():
    table = make_snippets(annotated(Segment(0.3, 0.8, "wave"), seconds=1.0), length_s=1.0)
    assert labels_of(table) == ["wave"]
    table = make_snippets(annotated(Segment(0.3, 0.799, "wave"), seconds=1.0), length_s=1.0)
    assert labels_of(table) == [None]


@pytest.mark.parametrize(("rule", "positive"), [("coverage", True), ("iou", False), ("segment", False)])
def test_each_rule_goes_by_its_own_figure(rule, positive):
    table = make_snippets(annotated(Segment(0.0, 4.0, "wave"), seconds=4.0), LabelRule(rule), length_s=1.0)
    assert labels_of(table) == ["wave" if positive else None] * 4


def test_what_a_segment_has_outside_of_the_recording_counts_for_no_figure():
    table = make_snippets(annotated(Segment(-5.0, 1.0, "wave"), Segment(1.0, 99.0, "clap"), seconds=2.0), length_s=1.0)
    wave, clap = table.labels.index("wave"), table.labels.index("clap")
    assert table.iou[0, wave] == table.segment_share[0, wave] == pytest.approx(1)
    assert table.iou[1, clap] == table.segment_share[1, clap] == pytest.approx(1)
    away = make_snippets(annotated(Segment(0.0, 1.0, "wave"), Segment(50.0, 99.0, "clap"), seconds=2.0), length_s=1.0)
    assert not away.coverage[:, away.labels.index("clap")].any()


def test_of_several_labels_the_largest_wins_or_all_do():
    found = annotated(Segment(0.0, 0.7, "clap"), Segment(0.0, 0.9, "wave"), seconds=1.0)
    assert labels_of(make_snippets(found, length_s=1.0)) == ["wave"]
    assert make_snippets(found, length_s=1.0).target.tolist() == [[0, 1]]
    several = make_snippets(found, LabelRule(multi_label=True), length_s=1.0)
    assert several.target.tolist() == [[1, 1]]
    assert labels_of(several) == ["wave"]


def test_windows_without_label_are_background_when_there_is_one():
    table = make_snippets(annotated(Segment(1.0, 2.0, "wave"), seconds=3.0), LabelRule(background="none"), length_s=1.0)
    assert table.labels == ("none", "wave")
    assert labels_of(table) == ["none", "wave", "none"]
    assert table.target.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert table.coverage.tolist() == [[0, 0], [0, 1], [0, 0]]


def test_a_background_that_is_annotated_keeps_its_place():
    found = annotated(Segment(0.0, 1.0, "a"), Segment(1.0, 2.0, "none"), seconds=3.0)
    table = make_snippets(found, LabelRule(background="none"), length_s=1.0)
    assert table.labels == ("a", "none")
    assert labels_of(table) == ["a", "none", "none"]


def test_windows_in_the_ignore_band_are_neither_label_nor_background():
    rule = LabelRule(ignore_from=0.2, background="none")
    table = make_snippets(annotated(Segment(0.7, 2.1, "wave"), seconds=3.0), rule, length_s=1.0)
    assert table.label.tolist() == [IGNORED, 1, 0]
    assert table.target.tolist() == [[0, 0], [0, 1], [1, 0]]


def test_without_background_unlabeled_windows_are_negatives_only_where_several_labels_are_allowed():
    found = annotated(Segment(1.0, 2.0, "wave"), seconds=3.0)
    assert make_snippets(found, length_s=1.0).label.tolist() == [IGNORED, 0, IGNORED]
    assert make_snippets(found, LabelRule(multi_label=True), length_s=1.0).label.tolist() == [NO_LABEL, 0, NO_LABEL]


def test_layers_are_chosen_and_excluded_layers_are_cut_out():
    found = annotated(
        Segment(0.0, 2.0, "wave", "hands"),
        Segment(0.0, 4.0, "nod", "head"),
        Segment(1.5, 1.6, "advert", "NA"),
        seconds=4.0,
    )
    rule = LabelRule(background="none")
    table = make_snippets(found, rule, length_s=1.0, layers=["hands"], exclude_layers=["NA"])
    assert labels_of(table) == ["wave", None, "none", "none"]
    assert table.labels == ("none", "wave")


def test_short_segments_are_left_out_and_counted():
    found = annotated(Segment(0.0, 0.149, "wave"), Segment(1.0, 1.15, "wave"), seconds=2.0)
    table = make_snippets(found, LabelRule(threshold=0.1), length_s=1.0, min_segment_s=0.15)
    assert labels_of(table) == [None, "wave"]
    assert table.left_out["segments too short"] == 1


def test_clips_labeled_whole_are_one_snippet_or_windows_as_asked():
    found = catalog(Recording("a", label="wave"), Recording("b", label="clap"), seconds=2.4)
    whole = make_snippets(found)
    assert labels_of(whole) == ["wave", "clap"]
    assert whole.offset - whole.onset == pytest.approx([2.4, 2.4])
    windows = make_snippets(found, length_s=1.0)
    assert labels_of(windows) == ["wave", "wave", "clap", "clap"]


def test_without_a_length_each_segment_is_a_snippet():
    table = make_snippets(annotated(Segment(1.0, 2.0, "wave"), Segment(3.0, 4.5, "clap"), Segment(9.5, 11.0, "wave")))
    assert table.onset.tolist() == [1.0, 3.0, 9.5]
    assert table.offset == pytest.approx([2.0, 4.5, 10.0])
    assert labels_of(table) == ["wave", "clap", "wave"]


def test_recordings_that_nobody_annotated_are_no_background():
    found = catalog(Recording("a", label="wave"), Recording("b"))
    table = make_snippets(found, LabelRule(background="none"), length_s=1.0)
    assert set(table.recording) == {0}
    assert table.left_out["recordings without label"] == 1


def test_ignored_windows_are_counted_by_the_reason():
    segments = (Segment(0.0, 2.0, "wave"), Segment(3.6, 4.0, "wave"), Segment(6.0, 7.0, "rest", layer="pauses"))
    table = make_snippets(annotated(*segments), LabelRule(ignore_from=0.3), length_s=1.0, exclude_layers=["pauses"])
    ignored = {name: count for name, count in table.left_out.items() if name.startswith("windows")}
    assert ignored == {
        "windows without frame": 0,
        "windows in an excluded layer": 1,  # 6 to 7 s
        "windows in the ignore band": 1,  # 3 to 4 s, covered to 0.4
        "windows without label": 6,
    }
    assert len(table) == sum(ignored.values()) + 2
    with_background = make_snippets(annotated(*segments), LabelRule(background="none"), length_s=1.0)
    assert with_background.left_out["windows without label"] == 0


def test_windows_lie_in_the_time_that_all_views_cover():
    views = (view("a", "0", seconds=10.0), view("a", "1", seconds=3.0, offset=4.0))
    table = make_snippets(Catalog((Recording("a", label="wave"),), views), length_s=1.0)
    assert table.onset == pytest.approx([4.0, 5.0, 6.0])
    alone = make_snippets(Catalog((Recording("a", label="wave"),), views), length_s=1.0, views=["0"])
    assert len(alone) == 10


def test_windows_without_a_frame_are_left_out_and_counted():
    times = np.array([*np.arange(0, 1, 0.1), *np.arange(4, 5, 0.1)])
    found = Catalog((Recording("a", label="wave"),), (view("a", frame_times=times, num_frames=20),))
    table = make_snippets(found, length_s=1.0)
    assert table.onset == pytest.approx([0.0, 4.0])
    assert table.left_out["windows without frame"] == 3


def test_only_named_labels_in_their_order():
    found = annotated(Segment(0.0, 1.0, "a"), Segment(1.0, 2.0, "b"), Segment(2.0, 3.0, "c"), seconds=3.0)
    table = make_snippets(found, length_s=1.0, labels=["c", "a"])
    assert table.labels == ("c", "a")
    assert labels_of(table) == ["a", None, "c"]
    with pytest.raises(UserError, match=r"No label 'd' in the catalog. Labels: a, b, c"):
        make_snippets(found, labels=["d"])
    with pytest.raises(UserError, match=r"No layer 'hand' in the annotations. Layers: ''"):
        make_snippets(found, layers=["hand"])


def test_nothing_labeled_says_what_to_do():
    with pytest.raises(UserError) as error:
        make_snippets(catalog(Recording("a"), Recording("b")))
    assert str(error.value) == (
        "None of the 2 recordings has a label or segments, so there is nothing to label snippets by. Put clips into a "
        "folder per class, or name annotation files in study.segments, then run 'actionprep scan'."
    )
    with pytest.raises(UserError, match=r"No recording gives a snippet .*Windows of 20000 ms may be too long"):
        make_snippets(catalog(Recording("a", label="wave")), length_s=20.0)


def test_a_data_frame_names_what_the_arrays_code():
    found = catalog(
        Recording("a", "anna", "s1", split="train"),
        segments={"a": (Segment(0.0, 1.0, "wave"), Segment(0.0, 0.6, "clap"))},
        seconds=2.0,
    )
    frame = make_snippets(found, LabelRule(multi_label=True, background=None), length_s=1.0).to_frame()
    assert frame["label"].tolist() == ["wave", ""]
    assert frame["labels"].tolist() == [("clap", "wave"), ()]
    assert frame["ignored"].tolist() == [False, False]
    assert frame["coverage"].tolist()[0] == 1.0
    assert np.isnan(frame["coverage"].tolist()[1])
    assert frame["subject"].tolist() == ["anna", "anna"]


@st.composite
def cases(draw):
    intervals = draw(
        st.lists(st.tuples(st.integers(0, 95), st.integers(1, 40), st.sampled_from("abc")), min_size=1, max_size=6)
    )
    return {
        "segments": [(onset, onset + length, label) for onset, length, label in intervals],
        "length": draw(st.integers(1, 30)),
        "stride": draw(st.integers(1, 30)),
        "threshold": Fraction(draw(st.integers(0, 20)), 20),
        "band": draw(st.none() | st.integers(0, 19).map(lambda twentieths: Fraction(twentieths, 20))),
        "rule": draw(st.sampled_from(["coverage", "iou", "segment"])),
        "multi_label": draw(st.booleans()),
        "background": draw(st.sampled_from([None, "zzz"])),
    }


@settings(max_examples=150)
@given(case=cases())
def test_labels_equal_exact_fractions(case):
    # A tick is 10 ms and the recording lasts 100 ticks; the truth is counted in whole ticks.
    found = annotated(*(Segment(a / 100, b / 100, label) for a, b, label in case["segments"]), seconds=1.0)
    found = Catalog(found.recordings, (view("a", seconds=1.0, fps=100.0),), found.segments)
    rule = LabelRule(
        case["rule"],
        float(case["threshold"]),
        None if case["band"] is None else float(case["band"]),
        case["multi_label"],
        case["background"],
    )
    table = make_snippets(found, rule, length_s=case["length"] / 100, stride_s=case["stride"] / 100)

    names = sorted({label for _, _, label in case["segments"]})
    for row, onset in enumerate(range(0, 100 - case["length"] + 1, case["stride"])):
        inside = set(range(onset, onset + case["length"]))
        figures = {}
        for name in names:
            own = [set(range(a, min(b, 100))) for a, b, label in case["segments"] if label == name and a < 100]
            figures[name] = {
                "coverage": Fraction(len(inside & set().union(*own)), len(inside)),
                "iou": max((Fraction(len(inside & one), len(inside | one)) for one in own), default=Fraction(0)),
                "segment": max((Fraction(len(inside & one), len(one)) for one in own), default=Fraction(0)),
            }
        passing = [
            name
            for name in names
            if figures[name][case["rule"]] >= case["threshold"] and figures[name][case["rule"]] > 0
        ]
        best = max(
            passing, key=lambda name: (figures[name][case["rule"]], figures[name]["iou"], -ord(name)), default=None
        )
        band = case["band"]
        near = band is not None and any(0 < figures[name][case["rule"]] >= band for name in names)
        if best is not None:
            expected = best
        elif near:
            expected = IGNORED
        elif case["background"]:
            expected = case["background"]
        else:
            expected = NO_LABEL if case["multi_label"] else IGNORED
        code = int(table.label[row])
        assert (table.labels[code] if code >= 0 else code) == expected
        targets = {table.labels[column] for column in np.flatnonzero(table.target[row])}
        one_hot = {expected} if isinstance(expected, str) else set()
        assert targets == (set(passing) if case["multi_label"] and passing else one_hot)
    assert len(table) == len(range(0, 100 - case["length"] + 1, case["stride"]))


def test_a_clip_shorter_than_the_shortest_segment_gets_no_label():
    found = Catalog(
        (Recording("a", label="wave"), Recording("b", label="wave")), (view("a", seconds=1.0), view("b", seconds=3.0))
    )
    table = make_snippets(found, length_s=1.0, min_segment_s=2.0)
    assert labels_of(table) == [None, "wave", "wave", "wave"]
    assert table.left_out["segments too short"] == 1
