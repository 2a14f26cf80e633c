"""Read text files with the names of numbered classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actionprep.datasets.tables import read_text
from actionprep.errors import UserError

_NUMBER_FIRST = re.compile(r'\s*"?(\d{1,6})"?\s*(?:[,;:\t]|\s)\s*"?(.*?)"?\s*')
_NUMBER_LAST = re.compile(r'\s*"?(.*?)"?\s*(?:[,;\t]|\s)\s*(\d{1,6})\s*')
_PBTXT = re.compile(r'name:\s*"([^"]*)"\s*(?:label_)?id:\s*(\d{1,6})')


@dataclass(frozen=True)
class ClassNames:
    """Names of classes.

    Attributes:
        path: File that they come from.
        by_number: Name of each class by its number in that file.
    """

    path: Path
    by_number: Mapping[int, str]

    @classmethod
    def read(cls, path: Path) -> ClassNames:
        """Read the names from lines such as "1 wave", "1,wave", "wave 1" or "wave", or from a pbtxt file.

        Lines without numbers count from 0.

        Raises:
            UserError: If the file cannot be read, has no names, or has a number twice.
        """
        text = read_text(path)
        pairs = [(int(number), name) for name, number in _PBTXT.findall(text)]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        for pattern, group in ((_NUMBER_FIRST, 1), (_NUMBER_LAST, 2)):
            matches = [pattern.fullmatch(line) for line in lines]
            # A table may have a line with column names.
            if len(matches) > 1 and matches[0] is None and not any(letter.isdigit() for letter in lines[0]):
                matches = matches[1:]
            if not pairs and all(match is not None and match[3 - group] for match in matches):
                pairs = [(int(match[group]), match[3 - group]) for match in matches if match is not None]
        pairs = pairs or list(enumerate(lines))
        if not pairs:
            raise UserError(f"The file of class names {path} is empty.")
        names: dict[int, str] = {}
        for number, name in pairs:
            if names.setdefault(number, name) != name:
                raise UserError(f"{path} names class {number} twice: '{names[number]}' and '{name}'.")
        return cls(path, names)

    def label(self, number: int, first: int) -> str:
        """Return the name of a class.

        Args:
            number: Number of the class in a list.
            first: Number of the first class in that list. A file that leaves out no number may begin at another one.

        Raises:
            ValueError: If the file has no such class.
        """
        lowest, highest = min(self.by_number), max(self.by_number)
        shift = first - lowest if len(self.by_number) == highest - lowest + 1 else 0
        name = self.by_number.get(number - shift)
        if name is None:
            raise ValueError(
                f"class {number} is not in {self.path.name}, which has {lowest + shift} to {highest + shift}"
            )
        return name


def find_class_names(path: Path, names: Sequence[str]) -> ClassNames | None:
    """Read the first file of these names beside a list or one folder above it; None if there is none."""
    for name in names:
        for folder in (path.parent, path.parent.parent):
            if (folder / name).is_file():
                return ClassNames.read(folder / name)
    return None
