from dataclasses import replace

import numpy as np
import pytest
from training_fakes import make_store, table_of

from actionprep.datasets.split_choice import (
    PartlyGivenSplitError,
    Parts,
    SplitChoice,
    check_train,
    choose_folds,
    choose_parts,
    describe,
    groups_of,
)
from actionprep.errors import UserError
from actionprep.training.datasets import read_table


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("parts") / "store", subjects=5)


def with_(table, **values):
    for name, value in values.items():
        object.__setattr__(table, name, value)
    return table


def test_subjects_are_kept_apart_when_they_are_known(store):
    table = read_table(store, "default")
    parts = choose_parts(store, table, SplitChoice())
    assert (parts.by, parts.why) == ("subject", "split by subject")
    of = {
        part: {table.subjects[table.recording[row]] for row in parts.split.rows(part)}
        for part in ("train", "val", "test")
    }
    assert not of["train"] & of["test"]
    assert not of["train"] & of["val"]
    assert sum(map(len, of.values())) == 5


def test_split_without_subjects_groups_by_recording(store):
    table = with_(read_table(store, "default"), subjects=("",) * 15)
    parts = choose_parts(store, table, SplitChoice())
    assert parts.by == "recording"
    assert parts.why == "split by recording, since subjects are not known and sessions are not known"


@pytest.mark.parametrize(("sessions", "by", "known"), [
    (("",) * 15, "recording", "'s1_left_0', 's1_right_0', 's1_up_0'"),
    (("am", "pm", "pm") * 5, "session", "'am', 'pm'"),
])  # fmt: skip
def test_split_rejects_subjects_if_none_are_known(store, sessions, by, known):
    table = with_(read_table(store, "default"), subjects=("",) * 15, sessions=sessions)
    with pytest.raises(UserError) as caught:
        choose_parts(store, table, SplitChoice(train=("1",)))
    assert str(caught.value).startswith(
        f"No {by} '1'. Groups are {by}s here (split by {by}, since subjects are not known"
    )
    assert f"): {known}" in str(caught.value)


def test_sessions_come_before_recordings(store):
    table = read_table(store, "default")
    sessions = tuple(f"day {index % 4}" for index in range(15))
    parts = choose_parts(store, with_(table, subjects=("",) * 15, sessions=sessions), SplitChoice())
    assert (parts.by, parts.why) == ("session", "split by session, since subjects are not known")


def test_choose_parts_uses_named_subjects_and_splits_off_val(store):
    table = read_table(store, "default")
    parts = choose_parts(store, table, SplitChoice(train=("1", "3", "5"), test=("2", "4")))
    subjects = {
        part: {table.subjects[table.recording[row]] for row in parts.split.rows(part)}
        for part in ("train", "val", "test")
    }
    assert subjects["test"] == {"2", "4"}
    assert subjects["train"] | subjects["val"] == {"1", "3", "5"}
    assert len(subjects["val"]) == 1


def test_leaving_one_subject_out_tests_every_subject_once(store):
    table = read_table(store, "default")
    result = choose_folds(table, SplitChoice(val_share=0.0), by="subject")
    tested = np.concatenate([parts.split.test for parts in result])
    assert len(result) == 5
    assert sorted(tested.tolist()) == list(range(15))
    assert result[1].why == "testing on subject 2"


def test_split_description_lists_the_parts(store):
    table = read_table(store, "default")
    lines = describe(choose_parts(store, table, SplitChoice(train=("1", "3", "5"), test=("2", "4"))), table)
    assert lines[2] == "test: 6 snippets, subject 2, 4"


def test_one_class_only_is_refused(store):
    table = table_of(["a", "b"], ["left", "left"], ["1", "2"], seconds=1.0)
    with pytest.raises(UserError, match=r"needs at least two classes, but these snippets have only the class 'left'"):
        choose_parts(store, table, SplitChoice())


def test_choose_parts_unknown_subject_lists_known_ones(store):
    with pytest.raises(UserError, match=r"No subject '9'\..*Available: '1', '2', '3', '4', '5'\."):
        choose_parts(store, read_table(store, "default"), SplitChoice(test=("9",)))


def test_split_by_a_column_is_described_by_subject(store):
    table = read_table(store, "default")
    names = {"train": ("1", "2"), "val": ("3",), "test": ("4",)}
    by_subject = choose_parts(store, table, SplitChoice(train=("1", "2"), val=("3",), test=("4",)))
    recordings = {
        part: tuple(table.recordings[code] for code in table.recording[by_subject.split.rows(part)]) for part in names
    }
    parts = Parts(replace(by_subject.split, groups=recordings), "column", "the stored split 'paper'", "paper")
    assert groups_of(parts, table) == {part: ("subject", subjects) for part, subjects in names.items()}
    unknown = replace(table, subjects=("",) * len(table.subjects))
    assert groups_of(parts, unknown) == {part: ("recording", names) for part, names in recordings.items()}
    assert describe(parts, table)[0] == f"train: {len(parts.split.train)} snippets, subject 1, 2"


def test_shares_that_leave_nothing_for_train_are_refused(store):
    with pytest.raises(UserError, match=r"The shares of val \(0\.9\) and of test \(0\.9\) leave nothing for train"):
        choose_parts(store, read_table(store, "default"), SplitChoice(val_share=0.9, test_share=0.9))


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"train": ("1",), "test": ("2",)}, "train, test"),
        ({"by": "session"}, "by"),
        ({"val_share": 0.4, "test_share": 0.0}, "val_share, test_share"),
    ],
)
def test_a_stored_split_is_taken_whole_or_not_at_all(store, asked, named):
    table = read_table(store, "default")
    with pytest.raises(
        UserError, match=rf"split/paper is used unchanged .*, so {named} of the SplitChoice cannot be used"
    ):
        choose_parts(store, table, SplitChoice(stored="paper", **asked))


def test_split_rejects_a_train_part_with_one_class(store):
    table = read_table(store, "default")
    by_recording = {"by": "recording", "val_share": 0.0}
    lefts = tuple(f"s{subject}_left_0" for subject in range(1, 5))
    parts = choose_parts(store, table, SplitChoice(train=lefts, test=("s5_left_0",), **by_recording))
    with pytest.raises(UserError) as caught:
        check_train(table, parts.split)
    assert str(caught.value).splitlines()[0] == (
        "A classifier needs at least two classes to train on, but the train part has only the class 'left' (4 snippets); "
        "no part has right, up."
    )
    up = np.flatnonzero([recording.endswith("up_0") for recording in table.recordings])
    with pytest.raises(UserError, match=r"the class 'left' \(4 snippets\); val has up; no part has right\."):
        check_train(table, replace(parts.split, val=up))
    more = choose_parts(store, table, SplitChoice(train=(*lefts, "s1_up_0"), test=("s5_left_0",), **by_recording))
    check_train(table, more.split)


def test_choose_parts_uses_given_split_of_all_recordings(store):
    table = read_table(store, "default")
    given = ["test" if name.startswith(("s1", "s3_left")) else "train" for name in table.recordings]
    parts = choose_parts(store, with_(table, splits=tuple(given)), SplitChoice(val_share=0.0))
    assert parts.by == "column"
    assert parts.why == "the given split of the recordings (train 11, test 4); ignore it with --by recording"
    for part in ("train", "test"):
        expected = [row for row, code in enumerate(table.recording) if given[code] == part]
        assert parts.split.rows(part).tolist() == expected


def test_choose_parts_carves_val_out_of_given_train(store):
    table = read_table(store, "default")
    given = tuple("test" if name.startswith("s5") else "train" for name in table.recordings)
    split = choose_parts(store, with_(table, splits=given), SplitChoice()).split
    assert len(split.val) > 0
    assert {given[code] for code in table.recording[split.val]} == {"train"}
    assert {given[code] for code in table.recording[split.test]} == {"test"}


def test_choose_parts_refuses_partly_given_split(store):
    table = read_table(store, "default")
    given = ("train", "test") + ("",) * 13
    expected = (
        r"^2 of 15 labeled recordings have a given split, and 13 have none, such as 's1_up_0'\.\nGive each recording a "
        r"split \(column 'split' of the table of recordings\), or ignore the given ones with --by subject"
    )
    with pytest.raises(PartlyGivenSplitError, match=expected):
        choose_parts(store, with_(table, splits=given), SplitChoice())
    assert choose_parts(store, with_(table, splits=given), SplitChoice(by="recording")).by == "recording"
    named = SplitChoice(train=("1", "2"), test=("3",))
    assert choose_parts(store, with_(table, splits=given), named).by == "subject"


def test_choose_parts_one_given_part_is_no_split(store):
    table = read_table(store, "default")
    assert choose_parts(store, with_(table, splits=("train",) * 15), SplitChoice()).by == "subject"


def test_choose_parts_test_share_with_given_split(store):
    table = read_table(store, "default")
    given = tuple("test" if name.startswith("s5") else "train" for name in table.recordings)
    with pytest.raises(UserError, match=r"share of test \(0\.3\) cannot be used\. Leave out --test, or ignore"):
        choose_parts(store, with_(table, splits=given), SplitChoice(test_share=0.3))
