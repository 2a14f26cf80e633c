"""Names of weights in two layouts, as pairs, and state dicts renamed by them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class KeyMap:
    """Names of weights in two layouts.

    rules: (theirs, ours) pairs, matched in order against whole keys or their beginnings up to a dot; `{i}` is any
           number.
    `#0`, `#1`, `#2` behind a name of ours say that theirs is that third of it (query, key, value).
    """

    rules: tuple[tuple[str, str], ...]

    def to_ours(self, state: State) -> State:
        """Rename and join; what no rule names keeps its name behind a question mark."""
        renamed: State = {}
        parts: dict[str, dict[int, Tensor]] = {}
        for key, tensor in state.items():
            name = self._rename(key, 0, 1)
            stem, _, third = name.partition("#")
            if third:
                index, _, rest = third.partition(".")
                parts.setdefault(f"{stem}.{rest}", {})[int(index)] = tensor
            else:
                renamed[name] = tensor
        for name, thirds in parts.items():
            if len(thirds) == 3:
                renamed[name] = torch.cat([thirds[i] for i in range(3)])
            else:
                renamed[f"?{name}"] = torch.cat(list(thirds.values()))
        return renamed

    def to_theirs(self, state: State) -> State:
        """The way back: rename and split."""
        renamed: State = {}
        for key, tensor in state.items():
            thirds = [self._rename(_third(key, i), 1, 0) for i in range(3)]
            if not any(name.startswith("?") or "#" in name for name in thirds):
                renamed.update(zip(thirds, tensor.chunk(3), strict=True))
            else:
                name = self._rename(key, 1, 0)
                if not name.startswith("?"):
                    renamed[name] = tensor
        return renamed

    def _rename(self, key: str, source: int, to: int) -> str:
        for rule in self.rules:
            pattern, replacement = rule[source], rule[to]
            found = re.fullmatch(re.escape(pattern).replace(r"\{i\}", r"(\d+)") + r"(\..*)?", key)
            if found is None:
                continue
            *numbers, rest = found.groups()
            for number in numbers:
                replacement = replacement.replace("{i}", number, 1)
            return replacement + (rest or "")
        return f"?{key}"


def _third(key: str, index: int) -> str:
    stem, dot, rest = key.rpartition(".")
    return f"{stem}#{index}{dot}{rest}"


def in_blocks(theirs: str, ours: str, pairs: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Rules of what stands in each block, by their and our name of a block."""
    return tuple((f"{theirs}.{a}", f"{ours}.{b}") for a, b in pairs.items())
