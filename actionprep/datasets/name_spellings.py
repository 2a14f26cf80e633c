"""Find names that may be two spellings of one person or animal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Words before a number that carry no meaning: "subject 1", "S01" and "1" are one subject.
_PREFIXES = {"subject", "subj", "sub", "s"}


def same_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Group names that are equal but for their spelling.

    Ignored are case, accents, spaces and punctuation, leading zeros, the order of words, and a word such as "subject"
    before a number.

    Args:
        names: Names such as "S01", "Anna Berg" or "Berg, Anna".

    Returns:
        Groups of two or more different spellings, each sorted.
    """
    groups: list[tuple[set[str], set[str]]] = []  # keys, names
    for name in set(names):
        keys, members = _keys(name), {name}
        separate = []
        for group in groups:
            if group[0] & keys:
                keys, members = keys | group[0], members | group[1]
            else:
                separate.append(group)
        groups = [*separate, (keys, members)]
    return sorted(tuple(sorted(members)) for _, members in groups if len(members) > 1)


def _keys(name: str) -> set[str]:
    """Return the keys of a name; two names with one in common are spellings of each other."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    words = [word.lstrip("0") or word[-1] for word in re.findall(r"\d+|[^\W\d_]+", plain.casefold())]
    if len(words) > 1 and words[0] in _PREFIXES and words[1].isdigit():
        words = words[1:]
    if not words:
        return {name}
    # Numbers stay apart ("1 2" is not "12"); words may be joined ("JohnDoe").
    joined = re.sub(r"(?<=[^\W\d_])\|(?=[^\W\d_])", "", "|".join(words))
    return {joined} if any(map(str.isdigit, words)) else {joined, "|".join(sorted(words))}
