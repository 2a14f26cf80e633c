"""Measure the prose of the documentation: words per sentence, and lines that are too long.

    python docs/prose.py            one row per page, and what misses the limits
    python docs/prose.py PAGE …     the same for these pages, with their long sentences

Code blocks, tables, headings, comments and link definitions are not prose. Inline code counts as one word.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(ROOT.glob("docs/*.md")))

MAX_MEAN = 16.0
"""Words per sentence, on average over a page."""
LONG = 30
"""A sentence of more words is long."""
MAX_LONG_SHARE = 0.05
MAX_LINE = 120
"""Characters per line of prose."""

_DEFINITION = re.compile(r"^\[[^\]]+\]: ")
_FENCE = re.compile(r"^ *```")
_LIST_MARKER = re.compile(r"^\s*(?:[-*+]|\d+\.|>)\s+")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\([^)]*\)")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"”’)*]*\s+(?=[\"“‘(*]*[A-Z0-9])")


@dataclass(frozen=True, slots=True)
class Prose:
    """Sentences and overlong lines of one page.

    Attributes:
        sentences: Sentences in page order, with inline code replaced by one word.
        wide: 1-based numbers of prose lines over `MAX_LINE` characters.
    """

    sentences: tuple[str, ...]
    wide: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean number of words per sentence; 0 for a page without prose."""
        return sum(map(num_words, self.sentences)) / len(self.sentences) if self.sentences else 0.0

    @property
    def long(self) -> tuple[str, ...]:
        """Sentences with more than `LONG` words."""
        return tuple(sentence for sentence in self.sentences if num_words(sentence) > LONG)

    def faults(self) -> list[str]:
        """Describe each limit that the page misses; empty if it meets all."""
        faults = []
        if self.mean > MAX_MEAN:
            faults.append(f"mean of {self.mean:.1f} words per sentence, over {MAX_MEAN:g}")
        if len(self.long) > MAX_LONG_SHARE * len(self.sentences):
            shown = "".join(f"\n    {sentence}" for sentence in self.long)
            faults.append(f"{len(self.long)} of {len(self.sentences)} sentences over {LONG} words:{shown}")
        if self.wide:
            faults.append(f"prose over {MAX_LINE} characters in lines {', '.join(map(str, self.wide))}")
        return faults


def read_prose(text: str) -> Prose:
    """Extract the prose of a page.

    Args:
        text: Markdown source.

    Returns:
        The page's sentences and its overlong lines. A line that cannot be broken (one link, one word) is not overlong.
    """
    wide: list[int] = []
    paragraphs: list[list[str]] = [[]]
    fenced = commented = False
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if _FENCE.match(line):
            fenced = not fenced
            paragraphs.append([])
            continue
        if fenced:
            continue
        if commented or stripped.startswith("<!--"):
            commented = "-->" not in stripped
            continue
        if not stripped or stripped.startswith(("#", "|")) or _DEFINITION.match(stripped):
            paragraphs.append([])
            continue
        if _LIST_MARKER.match(line):
            paragraphs.append([])
        if len(line) > MAX_LINE and not _unbreakable(stripped):
            wide.append(number)
        paragraphs[-1].append(_LIST_MARKER.sub("", stripped))
    sentences = [sentence for lines in paragraphs for sentence in _sentences(" ".join(lines))]
    return Prose(tuple(sentences), tuple(wide))


def num_words(sentence: str) -> int:
    """Count words: runs of characters with at least one letter or digit."""
    return sum(any(map(str.isalnum, word)) for word in sentence.split())


def _unbreakable(line: str) -> bool:
    return " " not in _LINK.sub("link", _LIST_MARKER.sub("", line)).rstrip(".,;:")


def _sentences(paragraph: str) -> Iterable[str]:
    plain = re.sub(r"`[^`]+`", "CODE", _LINK.sub(lambda link: "" if link[1] else link[2], paragraph))
    return (sentence for part in _SENTENCE_END.split(plain) if num_words(sentence := part.strip()))


def main() -> int:
    """Print the counts per page; return 1 if a page misses a limit."""
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    failed = False
    for path in chosen or PAGES:
        prose = read_prose(path.read_text(encoding="utf-8"))
        faults = prose.faults()
        failed |= bool(faults)
        share = len(prose.long) / max(len(prose.sentences), 1)
        print(
            f"{path.relative_to(ROOT).as_posix():24} {len(prose.sentences):4} sentences"
            f"  mean {prose.mean:4.1f}  long {share:4.0%}  wide lines {len(prose.wide):3}{'  *' if faults else ''}"
        )
        if chosen:
            print("".join(f"  {fault}\n" for fault in faults), end="")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
