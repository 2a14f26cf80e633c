"""Rename the keys of state dicts between two layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class KeyMap:
    """Mapping between the weight names of two layouts.

    Attributes:
        rules: (theirs, ours) pairs. The first rule that matches a full key, or its beginning up to a dot, applies.
            `{i}` matches any number. `#0`, `#1` or `#2` at the end of our name means that their tensor is this third
            of ours (query, key, value).
    """

    rules: tuple[tuple[str, str], ...]

    def to_ours(self, state: State) -> State:
        """Convert a state dict to our names and join thirds; keys without a rule get the prefix "?"."""
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
        """Convert a state dict to their names and split thirds; keys without a rule are dropped."""
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
            match = re.fullmatch(re.escape(pattern).replace(r"\{i\}", r"(\d+)") + r"(\..*)?", key)
            if match is None:
                continue
            *numbers, rest = match.groups()
            for number in numbers:
                replacement = replacement.replace("{i}", number, 1)
            return replacement + (rest or "")
        return f"?{key}"


def _third(key: str, index: int) -> str:
    stem, dot, rest = key.rpartition(".")
    return f"{stem}#{index}{dot}{rest}"


def in_blocks(theirs: str, ours: str, pairs: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Create the rules for the weights in a numbered block.

    Args:
        theirs: Their name of the block, with `{i}` for its number.
        ours: Our name of the block.
        pairs: Our name by their name, within the block.

    Returns:
        Rules for `KeyMap`.
    """
    return tuple((f"{theirs}.{their_name}", f"{ours}.{our_name}") for their_name, our_name in pairs.items())
