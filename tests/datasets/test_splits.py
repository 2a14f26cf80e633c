"""Splits into train, val and test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_fakes import table

from actionprep.datasets.products.snippets import IGNORED, SnippetTable
from actionprep.datasets.splits import PARTS, SplitAssignment, apply_parts, assign, check_split, folds
from actionprep.errors import UserError


def gestures(num_subjects: int = 5, num_classes: int = 4, repeats: int = 2) -> SnippetTable:
    """Every subject does every gesture, each in a separate recording."""
    rows = [
        (f"g{gesture}", f"s{subject}/g{gesture}/{repeat}", f"s{subject}")
        for subject in range(num_subjects)
        for gesture in range(num_classes)
        for repeat in range(repeats)
    ]
    labels, recordings, subjects = (list(column) for column in zip(*rows, strict=True))
    return table(labels, recordings, subjects=subjects)


def subjects_in(snippets: SnippetTable, rows: np.ndarray) -> set[str]:
    return {snippets.subjects[code] for code in snippets.recording[rows]}


def sizes(split: SplitAssignment) -> tuple[int, int, int]:
    return len(split.train), len(split.val), len(split.test)


def test_no_subject_is_on_two_sides_and_every_class_is_everywhere():
    snippets = gestures(num_subjects=10)
    split = assign(snippets, by="subject", fractions=(0.6, 0.2, 0.2), seed=3)
    assert sizes(split) == (48, 16, 16)
    parts = [subjects_in(snippets, rows) for rows in (split.train, split.val, split.test)]
    assert len(parts[0] | parts[1] | parts[2]) == sum(map(len, parts)) == 10
    assert split.groups == {
        part: tuple(sorted(names)) for part, names in zip(("train", "val", "test"), parts, strict=True)
    }
    assert split.notes == ()


def test_equal_seeds_give_equal_splits_and_others_differ():
    snippets = gestures(num_subjects=12)
    first, again = (assign(snippets, by="subject", seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.test, again.test)
    assert any(assign(snippets, by="subject", seed=seed).groups != first.groups for seed in range(2, 6))


def test_classes_are_shared_out_alike_though_frequent_and_rare_ones_mix():
    labels = ["rare"] * 10 + ["often"] * 90
    snippets = table(labels, [f"r{number}" for number in range(100)])
    split = assign(snippets, fractions=(0.6, 0.2, 0.2))
    for rows, rare, often in ((split.train, 6, 54), (split.val, 2, 18), (split.test, 2, 18)):
        assert np.bincount(snippets.label[rows]).tolist() == [often, rare]


def test_named_subjects_as_in_the_protocol():
    snippets = gestures()
    split = assign(snippets, by="subject", train=["s0", "s2"], test=["s1", "s3"], fractions=(1.0, 0.0, 0.0))
    assert split.groups == {"train": ("s0", "s2"), "val": (), "test": ("s1", "s3")}
    assert split.notes == ("not used: subject 's4'",)


def test_numbers_name_subjects_too_and_the_others_train():
    snippets = gestures()
    snippets = replace(snippets, subjects=tuple(subject[1:] for subject in snippets.subjects))
    split = assign(snippets, by="subject", test=[2, 4], fractions=(1.0, 0.0, 0.0))
    assert split.groups == {"train": ("0", "1", "3"), "val": (), "test": ("2", "4")}


def test_val_can_take_recordings_of_training_subjects():
    snippets = gestures(repeats=5)
    split = assign(snippets, by="subject", test=["s4"], fractions=(0.8, 0.2, 0.0), val_by="recording")
    assert subjects_in(snippets, split.val) <= subjects_in(snippets, split.train)
    assert subjects_in(snippets, split.test) == {"s4"}
    assert sizes(split) == (64, 16, 20)
    shared = assign(snippets, by="subject", val_by="recording")
    assert not subjects_in(snippets, shared.test) & subjects_in(snippets, np.append(shared.train, shared.val))


def test_recordings_with_the_same_video_stay_together():
    snippets = gestures()
    snippets = replace(snippets, sources=tuple((f"file{number // 2}",) for number in range(len(snippets.recordings))))
    split = assign(snippets, by="recording", fractions=(0.5, 0.25, 0.25))
    files = [
        {snippets.sources[code] for code in snippets.recording[rows]} for rows in (split.train, split.val, split.test)
    ]
    assert not files[0] & files[1]
    assert not files[0] & files[2]
    assert not files[1] & files[2]


def test_subjects_that_share_a_video_are_one_group():
    snippets = gestures(num_subjects=4)
    shared = [("x",) if id in ("s0/g0/0", "s1/g0/0") else (id,) for id in snippets.recordings]
    snippets = replace(snippets, sources=tuple(shared))
    split = assign(snippets, by="subject", test=["s0"], fractions=(1.0, 0.0, 0.0))
    assert split.groups["test"] == ("s0 + s1",)


def test_leaving_one_out_tests_each_subject_once():
    snippets = gestures()
    every = folds(snippets, by="subject", val_fraction=0.25)
    assert [split.groups["test"] for split in every] == [("s0",), ("s1",), ("s2",), ("s3",), ("s4",)]
    assert [sizes(split) for split in every] == [(24, 8, 8)] * 5
    assert sorted(np.concatenate([split.test for split in every])) == list(range(len(snippets)))


def test_folds_are_balanced():
    every = folds(gestures(num_subjects=9), by="subject", num_folds=3)
    assert [sizes(split) for split in every] == [(48, 0, 24)] * 3


def test_a_given_column_is_taken_and_val_carved_out_when_it_has_none():
    snippets = gestures()
    given_parts = tuple({"s3": "testing", "s4": "Test"}.get(subject, "train") for subject in snippets.subjects)
    snippets = replace(snippets, splits=given_parts)
    split = assign(snippets, by="column", fractions=(0.75, 0.25, 0.0))
    assert subjects_in(snippets, split.test) == {"s3", "s4"}
    assert sizes(split) == (18, 6, 16)
    assert len(assign(snippets, by="column", fractions=(1.0, 0.0, 0.0)).val) == 0


def test_a_given_column_that_leaks_a_video_is_refused():
    snippets = table(["a", "b"] * 2, ["r0", "r1", "r2", "r3"])
    snippets = replace(snippets, splits=("train", "train", "test", "test"), sources=(("x",), ("y",), ("x",), ("z",)))
    with pytest.raises(UserError) as error:
        assign(snippets, by="column", fractions=(1.0, 0.0, 0.0))
    assert str(error.value) == (
        "The split leaks: column 'r0 + r2' is in train and in test. "
        "Put each into one part; recordings with the same video file belong together."
    )


def test_ignored_snippets_are_in_no_part():
    snippets = gestures()
    label = snippets.label.copy()
    label[:8] = IGNORED
    split = assign(replace(snippets, label=label), fractions=(0.5, 0.25, 0.25))
    assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(8, 40))


def test_a_class_with_one_sample_is_refused_or_trained_on():
    snippets = table(["a"] * 6 + ["b"], [f"r{number}" for number in range(7)])
    with pytest.raises(UserError) as error:
        assign(snippets)
    assert str(error.value) == (
        "Class 'b' has one sample only, in recording 'r6': it cannot be both trained and tested. Leave the class out "
        "(snippets --labels …), add samples, or put it into train with --allow-single."
    )
    split = assign(snippets, allow_single=True)
    assert 6 in split.train
    assert split.notes == ("val has no sample of 'b'", "test has no sample of 'b'")


def test_split_of_too_few_subjects_names_the_required_number():
    with pytest.raises(UserError) as error:
        assign(gestures(num_subjects=2), by="subject")
    assert str(error.value) == (
        "A split by subject into train, val, test needs at least 3 subjects; there are 2. "
        "Split by recording, or leave val out with --val 0."
    )
    with pytest.raises(UserError, match=r"6 folds by subject need at least 6 subjects; there are 5"):
        folds(gestures(), by="subject", num_folds=6)


def test_recordings_without_subject_cannot_be_split_by_it():
    with pytest.raises(UserError) as error:
        assign(table(["a"] * 4, ["r0", "r1", "r2", "r3"]), by="subject")
    assert str(error.value) == (
        "Cannot split by subject: 4 of 4 recordings have no subject, such as 'r0'. Give a table with a column "
        "'subject' in "
        "study.recordings, or split by recording."
    )
    with pytest.raises(UserError, match=r"Cannot split by column: 4 of 4 recordings have no split, such as 'r0'"):
        assign(table(["a"] * 4, ["r0", "r1", "r2", "r3"]), by="column")


def test_names_that_do_not_exist_or_are_given_twice_are_refused():
    with pytest.raises(UserError, match=r"No subject 's9'\. Available: 's0', 's1', 's2', 's3', 's4'\."):
        assign(gestures(), by="subject", test=["s9"])
    with pytest.raises(UserError, match=r"Subject 's1' is named for train and for test"):
        assign(gestures(), by="subject", train=["s0", "s1"], test=["s1"])


def test_a_class_that_only_test_has_is_refused():
    snippets = table(["a", "b", "b"] * 2, [f"r{number}" for number in range(6)], subjects=["x", "y", "y"] * 2)
    with pytest.raises(UserError) as error:
        assign(snippets, by="subject", train=["x"], test=["y"], fractions=(1.0, 0.0, 0.0))
    assert str(error.value) == (
        "Train has no sample of class 'b', and test has. A class can be learned only from train: split by recording, "
        "give "
        "other groups, or leave the class out."
    )


def test_an_empty_train_is_refused():
    with pytest.raises(UserError, match=r"The split leaves train empty"):
        assign(gestures(), by="subject", test=["s0", "s1", "s2", "s3", "s4"], fractions=(1.0, 0.0, 0.0))
    with pytest.raises(UserError, match=r"train's above 0"):
        assign(gestures(), fractions=(0.0, 0.5, 0.5))


def test_a_stored_split_of_recordings_serves_any_table():
    snippets = gestures()
    split = assign(snippets, by="subject", fractions=(0.6, 0.2, 0.2))
    twice = table(
        [label for label in snippets.to_frame()["label"] for _ in range(2)],
        [id for id in snippets.recordings for _ in range(2)],
    )
    part_of = {snippets.recordings[snippets.recording[row]]: part for part in PARTS for row in split.rows(part)}
    applied = apply_parts(twice, part_of)
    assert sizes(applied) == tuple(2 * size for size in sizes(split))
    for part in PARTS:
        assert {part_of[twice.recordings[twice.recording[row]]] for row in applied.rows(part)} == {part}


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 14), st.integers(0, 4)), min_size=6, max_size=60),
    by=st.sampled_from(["subject", "recording"]),
    seed=st.integers(0, 3),
)
def test_whatever_comes_no_source_crosses_and_nothing_is_lost(rows, by, seed):
    subject_of: dict[int, int] = {}
    for _, recording, subject in rows:
        subject_of.setdefault(recording, subject)
    labels, recordings = [label for label, _, _ in rows], [f"r{recording}" for _, recording, _ in rows]
    snippets = table(labels, recordings, subjects=[f"s{subject_of[recording]}" for _, recording, _ in rows])
    try:
        split = assign(snippets, by=by, seed=seed)
    except UserError as error:
        if not any(part in str(error) for part in ("one sample only", "needs at least", "Train has no sample")):
            raise
        return
    check_split(snippets, split, by=by)
    assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(len(rows)))
    assert min(sizes(split)) > 0
    names = snippets.subjects if by == "subject" else snippets.recordings
    parts = [{names[code] for code in snippets.recording[part]} for part in (split.train, split.val, split.test)]
    assert sum(map(len, parts)) == len(set().union(*parts))


def test_all_in_train_accepts_a_class_with_one_sample() -> None:
    snippets = table(["a", "a", "b"], ["r1", "r2", "r3"])
    split = assign(snippets, fractions=(1.0, 0.0, 0.0))
    assert sizes(split) == (3, 0, 0)
    with pytest.raises(UserError, match="one sample only"):
        assign(snippets, fractions=(0.5, 0.0, 0.5))
