"""Single bits of chunk and metadata files are flipped."""

from __future__ import annotations

from pathlib import Path

from damaged_bytes import flip

from actionprep.api import open_study
from actionprep.datasets.catalog import Catalog
from actionprep.errors import ActionprepError
from torture.common import STAGES, Part, Trials, small_study

REPAIR_EVERY = 10


def flip_bits(trials: Trials, folder: Path) -> None:
    """Flip a bit of a random file of the store or catalog, look for the damage, and repair every tenth."""
    study = small_study(folder)
    study.build(*STAGES)
    digest, items = study.store.digest(), study.store.items()
    tables = Catalog.read(study.folder.catalog)
    expected = (tables.recordings, len(tables.views), tables.segments)
    store = study.store.require_local()
    files = sorted(path for path in store.rglob("*") if path.is_file())
    catalog = sorted(path for path in study.folder.catalog.rglob("*") if path.is_file() and path.name != "findings.csv")
    for _ in trials:
        # Metadata files are small and many: half of the trials damage chunks.
        kinds = {"chunk": [p for p in files if "c" in p.parts], "metadata": [p for p in files if p.name == "zarr.json"]}
        kinds["catalog"] = catalog
        kinds["index"] = [p for p in files if p not in kinds["chunk"] and p not in kinds["metadata"]]
        weights = [50, 35, 10, 5 if kinds["index"] else 0]
        [kind] = trials.random.choices(list(kinds), weights)
        path = trials.random.choice(kinds[kind])
        content = path.read_bytes()
        if not content:
            continue
        at, bit = trials.random.randrange(len(content)), trials.random.randrange(8)
        path.write_bytes(flip(content, at, bit))
        trials.facts[kind] += 1
        where = f"{path.relative_to(folder)}, byte {at}, bit {bit}"
        if kind == "catalog":
            try:
                read = Catalog.read(study.folder.catalog)
                unchanged = (read.recordings, len(read.views), read.segments) == expected
                trials.facts["catalog: equal content"] += unchanged
                trials.check(unchanged, f"a damaged catalog was read: {where}")
            except ActionprepError:
                trials.facts["catalog: refused"] += 1
            path.write_bytes(content)
            continue
        damaged = open_study(folder)
        found = [damage for _, damage in damaged.store_to_verify().verify() if damage is not None]
        if kind == "index":
            trials.check(not found and damaged.store.items() == items, f"a damaged index changed the items: {where}")
            trials.check(damaged.store.digest() == digest, f"a damaged index changed the digest: {where}")
        elif trials.check(len(found) == 1, f"verify found {len(found)} damaged places: {where}"):
            if found[0].key.path and not found[0].is_folder:
                trials.check(_raises(damaged, found[0].key), f"reading did not raise: {where}")
            if trials.done % REPAIR_EVERY == 0:
                damaged.repair(found)
                trials.facts["repaired"] += 1
                trials.check(open_study(folder).store.digest() == digest, f"another digest after repair: {where}")
                left = [damage for _, damage in open_study(folder).store_to_verify().verify() if damage is not None]
                trials.check(not left, f"damage is left after repair: {where}")
                continue
        path.write_bytes(content)


def _raises(study: object, key: object) -> bool:
    try:
        item = study.store.item(key.product, key.recording, key.view)  # type: ignore[attr-defined]
        for name in item:
            item[name][:]
    except ActionprepError:
        return True
    return False


PART = Part(
    "a bit of a chunk, metadata file, catalog or index is flipped: verify finds it, reading raises, repair restores",
    "flipped bits",
    1000,
    flip_bits,
)
