"""Read the structure of HDF5 files in a separate process, started as a script: damage can make the library loop forever.

Reads paths from standard input, one per line as JSON, and answers each with a line. It imports nothing of actionprep, so
that it starts fast.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress

import h5py


def check(path: str) -> None:
    """Open a file and read the attributes of all its groups and arrays."""

    def read(_: str, node: object) -> None:
        attributes = node.attrs  # type: ignore[attr-defined]
        for name in attributes:
            attributes[name]

    with h5py.File(path, "r") as file:
        read("/", file)
        file.visititems(read)


for line in sys.stdin:
    with suppress(Exception):  # the caller meets the same error and explains it
        check(json.loads(line))
    print("done", flush=True)
