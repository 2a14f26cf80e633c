"""Frame labels from the segments that cover a time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from study_fakes import annotated, catalog, view
from training_fakes import table_of

from actionprep.datasets.catalog import Catalog
from actionprep.datasets.frame_labels import FrameLabels, segments_of
from actionprep.datasets.products.snippets import SnippetTable, write_snippets
from actionprep.datasets.recordings import Recording
from actionprep.datasets.segments import Segment
from actionprep.datasets.snippets import LabelRule, make_snippets
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError


def names_at(table: SnippetTable, times: list[float], recording: int = 0) -> list[set[str] | None]:
    """Return the labels at each time, or None where they are unknown."""
    target, known = FrameLabels.of(table).at(recording, np.array(times))
    return [
        {table.labels[code] for code in np.flatnonzero(row)} if entry else None
        for row, entry in zip(target, known, strict=True)
    ]


def test_the_onset_of_a_segment_belongs_to_it_and_its_offset_does_not():
    table = make_snippets(annotated(Segment(2.0, 3.0, "wave"), Segment(3.0, 4.0, "clap")), length_s=1.0)
    assert names_at(table, [1.999, 2.0, 2.999, 3.0, 3.999, 4.0]) == [None, {"wave"}, {"wave"}, {"clap"}, {"clap"}, None]


def test_segments_that_touch_leave_no_gap_however_their_edge_is_rounded():
    edge = 0.1 + 0.2
    table = make_snippets(annotated(Segment(0.0, edge, "wave"), Segment(0.3, 1.0, "clap")), length_s=0.3)
    assert names_at(table, [0.3, edge, 0.3 - 1e-6]) == [{"clap"}, {"clap"}, {"wave"}]


def test_frame_labels_of_gaps_are_background_or_negatives():
    result = annotated(Segment(0.0, 1.0, "wave"), Segment(2.0, 3.0, "clap"))
    assert names_at(make_snippets(result, length_s=1.0), [1.5, 9.0]) == [None, None]
    rest = make_snippets(result, LabelRule(background="rest"), length_s=1.0)
    assert names_at(rest, [0.5, 1.5, 2.5, 9.0]) == [{"wave"}, {"rest"}, {"clap"}, {"rest"}]
    assert names_at(make_snippets(result, LabelRule(multi_label=True), length_s=1.0), [0.5, 1.5]) == [{"wave"}, set()]


def test_of_segments_that_overlap_the_shortest_wins_or_all_hold():
    result = annotated(Segment(0.0, 4.0, "walk"), Segment(1.0, 2.0, "wave"), Segment(3.0, 3.5, "clap"))
    assert names_at(make_snippets(result, length_s=1.0), [0.5, 1.5, 2.5, 3.2]) == [
        {"walk"},
        {"wave"},
        {"walk"},
        {"clap"},
    ]
    several = make_snippets(result, LabelRule(multi_label=True), length_s=1.0)
    assert names_at(several, [0.5, 1.5]) == [{"walk"}, {"walk", "wave"}]


def test_excluded_layer_has_unknown_frame_labels():
    result = annotated(Segment(0.0, 4.0, "wave"), Segment(1.0, 2.0, "advert", "NA"))
    for rule in (LabelRule(background="rest"), LabelRule(multi_label=True)):
        table = make_snippets(result, rule, length_s=1.0, exclude_layers=["NA"])
        assert names_at(table, [0.5, 1.0, 1.5, 2.0]) == [{"wave"}, None, None, {"wave"}]


def test_frame_labels_skip_excluded_labels_and_short_segments():
    result = annotated(Segment(0.0, 1.0, "wave"), Segment(1.0, 1.1, "wave"), Segment(2.0, 3.0, "clap"))
    table = make_snippets(result, LabelRule(background="rest"), length_s=1.0, min_segment_s=0.5, labels=["wave"])
    assert names_at(table, [0.5, 1.05, 2.5]) == [{"wave"}, {"rest"}, {"rest"}]


def test_a_recording_labeled_whole_has_its_label_at_every_instant():
    result = catalog(Recording("a", label="wave"), Recording("b", label="clap"), seconds=2.4)
    table = make_snippets(result, length_s=1.0)
    times = np.linspace(0, 2.4, 100, endpoint=False).tolist()
    assert names_at(table, times) == [{"wave"}] * 100
    assert names_at(table, times, recording=1) == [{"clap"}] * 100


def test_a_table_read_back_from_a_store_knows_the_same_labels(tmp_path):
    result = annotated(Segment(0.0, 2.0, "wave"), Segment(1.0, 2.0, "advert", "NA"), Segment(4.0, 7.0, "clap"))
    table = make_snippets(result, LabelRule(background="rest"), length_s=1.0, exclude_layers=["NA"])
    store = Store(tmp_path / "store", create=True)
    with store.write("snippets", "default", fingerprint="x", provenance={"stage": "snippets", "inputs": {}}) as item:
        write_snippets(table, item)
    again = SnippetTable.read(store.item("snippets", "default"))
    times = np.arange(0, 10, 0.25).tolist()
    assert names_at(again, times) == names_at(table, times)


def test_segments_of_older_tables_require_segment_snippets():
    table = table_of(["a", "b"], ["left", "up"], ["1", "2"], seconds=2.0)
    assert names_at(table, [0.0, 1.9], recording=1) == [{"up"}, {"up"}]
    with pytest.raises(
        UserError, match=r"Make the snippets again with 'actionprep snippets', or .* --set targets=snippet"
    ):
        segments_of(table_of(["a"], ["left"], ["1"], seconds=2.0, settings={"length_s": 1.0}))


@st.composite
def cases(draw):
    # Many segments in few ticks, so that they touch, overlap, repeat and leave gaps.
    intervals = draw(
        st.lists(st.tuples(st.integers(0, 29), st.integers(1, 12), st.sampled_from("abcX")), min_size=1, max_size=7)
    )
    return {
        "segments": [(onset, onset + length, label) for onset, length, label in intervals],
        "several": draw(st.booleans()),
        "background": draw(st.sampled_from([None, "rest", "b"])),
        "tick": draw(st.sampled_from([Fraction(1, 10), Fraction(1, 30), Fraction(1001, 30000)])),
    }


@settings(max_examples=100, deadline=None)
@given(case=cases())
@example({"segments": [(1, 9, "a"), (8, 16, "b")], "several": False, "background": None, "tick": Fraction(1, 30)})
@example({"segments": [(0, 1, "a"), (1, 2, "b")], "several": False, "background": None, "tick": Fraction(1, 10)})
def test_labels_at_instants_equal_those_counted_tick_by_tick(case):
    tick, size = case["tick"], 32
    # X is a separate layer, which is left out. Onsets are sums of floats, as in annotations.
    result = [
        Segment(float(first * tick), sum([float(tick)] * last), label, "NA" if label == "X" else "")
        for first, last, label in case["segments"]
    ]
    if all(entry.layer for entry in result):
        return
    seconds = float(size * tick)
    study = Catalog((Recording("a"),), (view("a", seconds=seconds, fps=float(1 / tick)),), {"a": tuple(result)})
    rule = LabelRule(multi_label=case["several"], background=case["background"])
    excluded = ["NA"] if any(entry.layer for entry in result) else []
    table = make_snippets(study, rule, length_s=seconds / 2, exclude_layers=excluded)

    for number in range(size):
        own = [(last - first, label) for first, last, label in case["segments"] if first <= number < last]
        # Lengths count in whole microseconds: of two segments of 8/30 s, one may be 1 µs shorter.
        inside = [
            (round(float(min(last, size) * tick) * 1e6) - round(float(first * tick) * 1e6), label)
            for first, last, label in case["segments"]
            if first <= number < last
        ]
        expected: set[str] | None
        if any(label == "X" for _, label in own):
            expected = None
        elif not own:
            expected = {case["background"]} if case["background"] else (set() if case["several"] else None)
        else:
            expected = {label for _, label in inside} if case["several"] else {min(inside)[1]}
        early, late = float(number * tick), float((number + Fraction(9, 10)) * tick)
        assert names_at(table, [early, late]) == [expected, expected]
