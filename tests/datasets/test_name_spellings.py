"""Names that are two spellings of one subject."""

from __future__ import annotations

import pytest

from actionprep.datasets.name_spellings import same_names


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("anna", "Anna "),
        ("S01", "s1"),
        ("subject 1", "1"),
        ("Subject_007", "S7"),
        ("Anna Berg", "Berg, Anna"),
        ("AnnaBerg", "anna-berg"),
        ("Zoë", "zoe"),
        ("Zoe\u0308", "Zoë"),
    ],
)
def test_same_names_of_two_spellings(name, other):
    assert same_names([name, other, "someone else"]) == [tuple(sorted((name, other)))]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("s1", "s2"),
        ("s1", "s10"),
        ("s1_2", "s12"),
        ("S1", "P1"),
        ("Maria", "Mario"),
        ("a1", "1a"),
        ("", "-"),
        ("0", "10"),
    ],
)
def test_same_names_of_two_subjects(name, other):
    assert same_names([name, other]) == []


def test_same_names_joins_all_spellings():
    names = ["Berg Anna", "annaberg", "Anna  Berg", "ANNA BERG", "tom"]
    assert same_names(names) == [tuple(sorted(names[:4]))]
