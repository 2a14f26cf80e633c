"""Pages keep the limits of docs/prose.py, and its counts are correct."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from doc_pages import PAGES, ROOT


def load_prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("actionprep_docs_prose", ROOT / "docs/prose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


prose = load_prose()

PAGE = """# A heading of many words that is no sentence and does not count

One two three. `actionprep track --grid 20` makes 3 items! Is 0.5 s [a link](page.md#part)
over two lines?

- a list item without a full stop
- another, with two. Sentences here.

| a table | with words |
| --- | --- |

<!-- a comment
over two lines -->
```sh
not prose. Not at all.
```
![an image is no text](image.png)
The end:

[link]: https://example.org/a.b
"""


def test_prose_sentences_of_a_page() -> None:
    assert prose.read_prose(PAGE).sentences == (
        "One two three.",
        "CODE makes 3 items!",
        "Is 0.5 s a link over two lines?",
        "a list item without a full stop",
        "another, with two.",
        "Sentences here.",
        "The end:",
    )


@pytest.mark.parametrize(
    ("sentence", "count"), [("One two – three.", 3), ("", 0), ("a 95 % interval", 3), ("half-open [0, 1)", 3)]
)
def test_prose_num_words(sentence: str, count: int) -> None:
    assert prose.num_words(sentence) == count


def test_prose_mean_and_long() -> None:
    page = prose.read_prose(f"{'word ' * 31}end.\n\nFour words stand here.\n")
    assert page.mean == (32 + 4) / 2
    assert [prose.num_words(sentence) for sentence in page.long] == [32]


def test_prose_faults_name_limit_and_value() -> None:
    page = prose.read_prose(f"{'word ' * 31}end.\n")
    assert page.faults() == [
        "mean of 32.0 words per sentence, over 16",
        f"1 of 1 sentences over 30 words:\n    {'word ' * 31}end.",
        "prose over 120 characters in lines 1",
    ]
    assert prose.read_prose("Short and plain.\n").faults() == []


def test_prose_wide_lines_except_tables_code_and_one_link() -> None:
    wide = "word " * 30
    link = f"[a link of words](https://example.org/{'x' * 120})"
    text = f"{wide}\n\n| {wide} |\n\n```text\n{wide}\n```\n\n- {link}.\n\n# {wide}\n"
    assert prose.read_prose(text).wide == (1,)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_prose_of_page_within_limits(page: Path) -> None:
    assert prose.read_prose(page.read_text(encoding="utf-8")).faults() == []
