"""Labels of windows, and the table of snippets."""

from __future__ import annotations

import itertools
import os
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_fakes import annotated, catalog, view

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.overlap import overlap_arrays
from actionprep.datasets.products.snippets import IGNORED, NO_LABEL
from actionprep.datasets.recordings import Recording
from actionprep.datasets.segments import Segment
from actionprep.datasets.snippets import LabelRule, label_windows, make_snippets
from actionprep.errors import UserError


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
def test_label_rules_use_their_own_measures(rule, positive):
    table = make_snippets(annotated(Segment(0.0, 4.0, "wave"), seconds=4.0), LabelRule(rule), length_s=1.0)
    assert labels_of(table) == ["wave" if positive else None] * 4


def test_overlap_ignores_segments_outside_of_the_recording():
    table = make_snippets(annotated(Segment(-5.0, 1.0, "wave"), Segment(1.0, 99.0, "clap"), seconds=2.0), length_s=1.0)
    wave, clap = table.labels.index("wave"), table.labels.index("clap")
    assert table.iou[0, wave] == table.segment_share[0, wave] == pytest.approx(1)
    assert table.iou[1, clap] == table.segment_share[1, clap] == pytest.approx(1)
    away = make_snippets(annotated(Segment(0.0, 1.0, "wave"), Segment(50.0, 99.0, "clap"), seconds=2.0), length_s=1.0)
    assert not away.coverage[:, away.labels.index("clap")].any()


def test_of_several_labels_the_largest_wins_or_all_do():
    study = annotated(Segment(0.0, 0.7, "clap"), Segment(0.0, 0.9, "wave"), seconds=1.0)
    assert labels_of(make_snippets(study, length_s=1.0)) == ["wave"]
    assert make_snippets(study, length_s=1.0).target.tolist() == [[0, 1]]
    several = make_snippets(study, LabelRule(multi_label=True), length_s=1.0)
    assert several.target.tolist() == [[1, 1]]
    assert labels_of(several) == ["wave"]


def test_windows_without_label_are_background_when_there_is_one():
    table = make_snippets(annotated(Segment(1.0, 2.0, "wave"), seconds=3.0), LabelRule(background="none"), length_s=1.0)
    assert table.labels == ("none", "wave")
    assert labels_of(table) == ["none", "wave", "none"]
    assert table.target.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert table.coverage.tolist() == [[0, 0], [0, 1], [0, 0]]


def test_a_background_that_is_annotated_keeps_its_place():
    study = annotated(Segment(0.0, 1.0, "a"), Segment(1.0, 2.0, "none"), seconds=3.0)
    table = make_snippets(study, LabelRule(background="none"), length_s=1.0)
    assert table.labels == ("a", "none")
    assert labels_of(table) == ["a", "none", "none"]


def test_windows_in_the_ignore_band_are_neither_label_nor_background():
    rule = LabelRule(ignore_from=0.2, background="none")
    table = make_snippets(annotated(Segment(0.7, 2.1, "wave"), seconds=3.0), rule, length_s=1.0)
    assert table.label.tolist() == [IGNORED, 1, 0]
    assert table.target.tolist() == [[0, 0], [0, 1], [1, 0]]


def test_unlabeled_windows_are_negatives_only_for_multi_label():
    study = annotated(Segment(1.0, 2.0, "wave"), seconds=3.0)
    assert make_snippets(study, length_s=1.0).label.tolist() == [IGNORED, 0, IGNORED]
    assert make_snippets(study, LabelRule(multi_label=True), length_s=1.0).label.tolist() == [NO_LABEL, 0, NO_LABEL]


def test_layers_are_chosen_and_excluded_layers_are_cut_out():
    study = annotated(
        Segment(0.0, 2.0, "wave", "hands"),
        Segment(0.0, 4.0, "nod", "head"),
        Segment(1.5, 1.6, "advert", "NA"),
        seconds=4.0,
    )
    rule = LabelRule(background="none")
    table = make_snippets(study, rule, length_s=1.0, layers=["hands"], exclude_layers=["NA"])
    assert labels_of(table) == ["wave", None, "none", "none"]
    assert table.labels == ("none", "wave")


def test_short_segments_are_left_out_and_counted():
    study = annotated(Segment(0.0, 0.149, "wave"), Segment(1.0, 1.15, "wave"), seconds=2.0)
    table = make_snippets(study, LabelRule(threshold=0.1), length_s=1.0, min_segment_s=0.15)
    assert labels_of(table) == [None, "wave"]
    assert table.left_out["segments too short"] == 1


def test_clips_labeled_whole_are_one_snippet_or_windows_as_asked():
    study = catalog(Recording("a", label="wave"), Recording("b", label="clap"), seconds=2.4)
    whole = make_snippets(study)
    assert labels_of(whole) == ["wave", "clap"]
    assert whole.offset - whole.onset == pytest.approx([2.4, 2.4])
    windows = make_snippets(study, length_s=1.0)
    assert labels_of(windows) == ["wave", "wave", "clap", "clap"]


def test_without_a_length_each_segment_is_a_snippet():
    table = make_snippets(annotated(Segment(1.0, 2.0, "wave"), Segment(3.0, 4.5, "clap"), Segment(9.5, 11.0, "wave")))
    assert table.onset.tolist() == [1.0, 3.0, 9.5]
    assert table.offset == pytest.approx([2.0, 4.5, 10.0])
    assert labels_of(table) == ["wave", "clap", "wave"]


def test_recordings_that_nobody_annotated_are_no_background():
    study = catalog(Recording("a", label="wave"), Recording("b"))
    table = make_snippets(study, LabelRule(background="none"), length_s=1.0)
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
    study = Catalog((Recording("a", label="wave"),), (view("a", frame_times=times, num_frames=20),))
    table = make_snippets(study, length_s=1.0)
    assert table.onset == pytest.approx([0.0, 4.0])
    assert table.left_out["windows without frame"] == 3


def test_only_named_labels_in_their_order():
    study = annotated(Segment(0.0, 1.0, "a"), Segment(1.0, 2.0, "b"), Segment(2.0, 3.0, "c"), seconds=3.0)
    table = make_snippets(study, length_s=1.0, labels=["c", "a"])
    assert table.labels == ("c", "a")
    assert labels_of(table) == ["a", None, "c"]
    with pytest.raises(UserError, match=r"No label 'd' in the catalog. Labels: a, b, c"):
        make_snippets(study, labels=["d"])
    with pytest.raises(UserError, match=r"No layer 'hand' in the annotations. Layers: ''"):
        make_snippets(study, layers=["hand"])


def test_snippets_without_labels_raise_an_error_with_a_remedy():
    with pytest.raises(UserError) as error:
        make_snippets(catalog(Recording("a"), Recording("b")))
    assert str(error.value) == (
        "None of the 2 recordings has a label or segments, so snippets cannot get labels. Put clips into a folder per "
        "class, name a table with the columns recording and label in study.recordings, or annotation files in "
        "study.segments. Then run 'actionprep scan'."
    )
    with pytest.raises(UserError, match=r"No recording gives a snippet .*Windows of 20000 ms may be too long"):
        make_snippets(catalog(Recording("a", label="wave")), length_s=20.0)


def test_a_data_frame_names_what_the_arrays_code():
    study = catalog(
        Recording("a", "anna", "s1", split="train"),
        segments={"a": (Segment(0.0, 1.0, "wave"), Segment(0.0, 0.6, "clap"))},
        seconds=2.0,
    )
    frame = make_snippets(study, LabelRule(multi_label=True, background=None), length_s=1.0).to_frame()
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
    study = annotated(*(Segment(a / 100, b / 100, label) for a, b, label in case["segments"]), seconds=1.0)
    study = Catalog(study.recordings, (view("a", seconds=1.0, fps=100.0),), study.segments)
    rule = LabelRule(
        case["rule"],
        float(case["threshold"]),
        None if case["band"] is None else float(case["band"]),
        case["multi_label"],
        case["background"],
    )
    table = make_snippets(study, rule, length_s=case["length"] / 100, stride_s=case["stride"] / 100)

    names = sorted({label for _, _, label in case["segments"]})
    for row, onset in enumerate(range(0, 100 - case["length"] + 1, case["stride"])):
        inside = set(range(onset, onset + case["length"]))
        overlaps = {}
        for name in names:
            own = [set(range(a, min(b, 100))) for a, b, label in case["segments"] if label == name and a < 100]
            overlaps[name] = {
                "coverage": Fraction(len(inside & set().union(*own)), len(inside)),
                "iou": max((Fraction(len(inside & entry), len(inside | entry)) for entry in own), default=Fraction(0)),
                "segment": max((Fraction(len(inside & entry), len(entry)) for entry in own), default=Fraction(0)),
            }
        passing = [
            name
            for name in names
            if overlaps[name][case["rule"]] >= case["threshold"] and overlaps[name][case["rule"]] > 0
        ]
        best = max(
            passing, key=lambda name: (overlaps[name][case["rule"]], overlaps[name]["iou"], -ord(name)), default=None
        )
        band = case["band"]
        near = band is not None and any(0 < overlaps[name][case["rule"]] >= band for name in names)
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
    study = Catalog(
        (Recording("a", label="wave"), Recording("b", label="wave")), (view("a", seconds=1.0), view("b", seconds=3.0))
    )
    table = make_snippets(study, length_s=1.0, min_segment_s=2.0)
    assert labels_of(table) == [None, "wave", "wave", "wave"]
    assert table.left_out["segments too short"] == 1


def test_make_snippets_clips_and_counts_segments():
    study = annotated(Segment(-5.0, 1.0, "wave"), Segment(1.0, 99.0, "clap"), Segment(2.0, 3.0, "clap"), seconds=4.0)
    table = make_snippets(study)
    assert sorted(zip(table.onset.tolist(), table.offset.tolist(), strict=True)) == [(0.0, 1.0), (1.0, 4.0), (2.0, 3.0)]
    assert table.left_out["segments clipped to the recording"] == 2
    assert "segments clipped to the recording" not in make_snippets(annotated(Segment(0.0, 10.0, "wave"))).left_out


def test_make_snippets_leaves_out_segments_without_length():
    table = make_snippets(annotated(Segment(1.0, 1.0, "wave"), Segment(2.0, 3.0, "wave")), length_s=1.0)
    assert table.left_out["segments too short"] == 1
    assert np.flatnonzero(table.target[:, 0]).tolist() == [2]


def test_make_snippets_over_a_gap_of_decades():
    times = np.concatenate([np.arange(25) / 25, 1e9 + np.arange(25) / 25])
    gap = view("a", frame_times=times, num_frames=len(times))
    study = Catalog((Recording("a"),), (gap,), {"a": (Segment(0.0, 0.5, "wave"),)})
    table = make_snippets(study, length_s=0.5)
    assert table.onset.tolist() == [0.0, 0.5, 1e9, 1e9 + 0.5]
    assert table.left_out["windows without frame"] == 2 * 10**9 - 2


def test_make_snippets_refuses_too_many_windows():
    with pytest.raises(UserError) as error:
        make_snippets(annotated(Segment(1.0, 2.0, "wave")), length_s=1.0, stride_s=1e-9)
    assert str(error.value) == (
        "Windows of 1000 ms every 1e-06 ms are too many: at least 9,000,000,002 with 1 labels each, and a table can have "
        "100,000,000. Use a longer --stride, or fewer labels or recordings in one table."
    )


def labeled_by_oracle(case) -> list[tuple[int, list[int]]]:
    """Label and target of each window by a double loop over integers and fractions."""
    windows, segments, num_labels, rule = case
    threshold, ignore_from = Fraction(rule.threshold), rule.ignore_from
    answers = []
    for first, last in windows:
        values = []
        for code in range(num_labels):
            own = [(a, b) for a, b, label in segments if label == code and a < b]
            common = [max(min(b, last) - max(a, first), 0) for a, b in own]
            edges = sorted({first, last, *(edge for segment in own for edge in segment if first < edge < last)})
            covered = sum(
                after - before
                for before, after in itertools.pairwise(edges)
                if any(a <= before and after <= b for a, b in own)
            )
            coverage = Fraction(covered, last - first)
            iou = max(
                (Fraction(c, max(b, last) - min(a, first)) for c, (a, b) in zip(common, own, strict=True) if c),
                default=Fraction(0),
            )
            share = max((Fraction(c, b - a) for c, (a, b) in zip(common, own, strict=True)), default=Fraction(0))
            values.append(({"coverage": coverage, "iou": iou, "segment": share}[rule.rule], iou))
        passing = [code for code in range(num_labels) if values[code][0] >= threshold and values[code][0] > 0]
        if passing:
            best = max(passing, key=lambda code: (*values[code], -code))
            chosen = passing if rule.multi_label else [best]
            answers.append((best, [int(code in chosen) for code in range(num_labels)]))
        else:
            in_band = ignore_from is not None and any(v >= Fraction(ignore_from) and v > 0 for v, _ in values)
            label = NO_LABEL if rule.multi_label and not in_band else IGNORED
            answers.append((label, [0] * num_labels))
    return answers


def random_case(rng):
    """Windows and segments in microseconds on a coarse grid, so that many touch, nest, repeat or lie on a threshold."""
    unit, start = int(rng.choice([1, 37, 40_000, 1_000_000])), int(rng.choice([0, 3_600_000_000]))
    num_windows, num_segments, num_labels = (int(rng.integers(1, most)) for most in (5, 7, 4))
    firsts, lengths = rng.integers(0, 20, num_windows), rng.integers(1, 9, num_windows)
    windows = sorted((start + int(a) * unit, start + int(a + n) * unit) for a, n in zip(firsts, lengths, strict=True))
    onsets, lengths = rng.integers(0, 20, num_segments), rng.integers(0, 12, num_segments)
    codes = rng.integers(0, num_labels, num_segments)
    segments = [
        (start + int(a) * unit, start + int(a + n) * unit, int(code))
        for a, n, code in zip(onsets, lengths, codes, strict=True)
    ]
    threshold = float(rng.choice([0.125, 0.25, 0.5, 0.75, 1.0]))
    ignore_from = float(rng.choice([0.0625, 0.125])) if rng.random() < 0.5 and threshold > 0.125 else None
    rule = LabelRule(
        str(rng.choice(["coverage", "iou", "segment"])), threshold, ignore_from, multi_label=bool(rng.random() < 0.5)
    )
    return windows, segments, num_labels, rule


def test_label_windows_match_integer_oracle():
    rng = np.random.default_rng(0)
    for _ in range(NUM_CASES):
        case = windows, segments, num_labels, rule = random_case(rng)
        kept = [segment for segment in segments if segment[0] < segment[1]]
        edges = [np.array(column, np.float64) / 1e6 for column in zip(*windows, strict=True)]
        columns = [np.array([segment[column] for segment in kept]) for column in range(3)]
        overlap = overlap_arrays(
            *edges, columns[0] / 1e6, columns[1] / 1e6, columns[2].astype(np.int64), num_labels=num_labels
        )
        value = dict(zip(("coverage", "iou", "segment"), overlap, strict=True))[rule.rule]
        label, target = label_windows(value, overlap[1], rule)
        assert list(zip(label.tolist(), target.tolist(), strict=True)) == labeled_by_oracle(case), case


NUM_CASES = int(os.environ.get("ACTIONPREP_ORACLE_CASES", "1500"))


def test_overlap_arrays_faster_than_a_double_loop():
    rng = np.random.default_rng(0)
    segments = np.sort(rng.uniform(0, 1000, (1000, 2)), axis=0)
    onset, offset = segments[:, 0], segments[:, 0] + rng.uniform(0.1, 2.0, 1000)
    firsts = np.arange(1000) * 1.0
    label = rng.integers(0, 5, 1000)

    def double_loop():
        iou = np.zeros((1000, 5))
        for row, first in enumerate(firsts.tolist()):
            for a, b, code in zip(onset.tolist(), offset.tolist(), label.tolist(), strict=True):
                common = min(b, first + 1) - max(a, first)
                if common > 0:
                    iou[row, code] = max(iou[row, code], common / (max(b, first + 1) - min(a, first)))
        return iou

    begin = time.perf_counter()
    expected = double_loop()
    slow = time.perf_counter() - begin
    quick = []
    for _ in range(5):
        begin = time.perf_counter()
        _, iou, _ = overlap_arrays(firsts, firsts + 1, onset, offset, label, num_labels=5)
        quick.append(time.perf_counter() - begin)
    np.testing.assert_allclose(iou, expected, atol=1e-9)
    assert min(quick) * 10 < slow, (min(quick), slow)
