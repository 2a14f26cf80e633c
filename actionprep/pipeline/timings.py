"""Where the time of a build goes: seconds by part, summed over tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

FRAMES, CONVERT, WAIT, COMMIT = "wait for frames", "convert", "wait for the disk", "commit"
"""Parts of a task besides its stages."""

DECODE, HASH, WRITE = "decode", "hash", "write"
"""Work in threads beside a task."""


@dataclass
class Timings:
    """Seconds of tasks.

    Attributes:
        total: Seconds of all tasks, each from its start to its end.
        parts: Seconds of parts that follow each other: stages by name, and those listed in this module.
        beside: Seconds of threads that work beside them: decoding, hashing and writing. Decoding counts the time of the
            processor, so that it gives the rate of a bare decode.
    """

    total: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    beside: dict[str, float] = field(default_factory=dict)

    def add(self, other: Timings) -> None:
        """Add the seconds of another task."""
        self.total += other.total
        for mine, theirs in ((self.parts, other.parts), (self.beside, other.beside)):
            for name, seconds in theirs.items():
                mine[name] = mine.get(name, 0.0) + seconds

    def shares(self) -> dict[str, float]:
        """Return the share of each part in the total, largest first, with the rest as "other"."""
        if self.total <= 0:
            return {}
        shares = {name: seconds / self.total for name, seconds in self.parts.items()}
        shares["other"] = max(0.0, 1 - sum(shares.values()))
        return dict(sorted(shares.items(), key=lambda share: -share[1]))

    def bare_rate(self, num_frames: int) -> float | None:
        """Return the frames per second of one thread that only decodes these frames; None if decoding took no time."""
        seconds = self.beside.get(DECODE, 0.0)
        return num_frames / seconds if seconds > 0 else None
