"""Parser of documentation pages for tests: blocks, commands, links, anchors, tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(
    r"(?:<!-- only parsed: (?P<why>[^>]+?) -->\n+)?"
    r"```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    title: the file name, if given. why_parsed: the reason why the block is parsed and not run, if given.
    """

    page: Path
    line: int
    language: str
    text: str
    title: str | None
    why_parsed: str | None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("text")) + 1,
            language,
            found["text"],
            found["title"],
            found["why"],
        )
        for found in _BLOCK.finditer(text)
        if found["language"] == language
    ]


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Return the position and the words of each command of the package in the page's sh blocks."""
    for block in blocks(page, "sh"):
        for number, line in enumerate(block.text.replace("\\\n", "  ").splitlines()):
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words and words[0].rpartition("/")[2] in ("actionprep", "actiontrain"):
                    yield f"{page.name}:{block.line + number}", [words[0].rpartition("/")[2], *words[1:]]


def links(page: Path) -> list[str]:
    """Return the local targets of a page's links and images."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    targets = [found["target"] for found in _LINK.finditer(text)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, formed as on the site."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def rows_under(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, without the header row and without backticks."""
    text = page.read_text(encoding="utf-8")
    _, _, after = text.partition(f"\n{heading}\n")
    lines = []
    for line in after.splitlines():
        if line.startswith("|"):
            lines.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif lines or line.startswith("#"):
            break
    return lines[2:]
