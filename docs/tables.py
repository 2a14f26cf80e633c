"""Update the tables in the documentation that come from the program: settings, stages, formats, recipes, benchmarks.

    python docs/tables.py           update all tables
    python docs/tables.py --check   list the pages that are out of date; exit code 1 if there are any

A page holds a table between `<!-- table: settings tracks -->` and `<!-- end of table -->`.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))

_MARKED = re.compile(
    r"(?P<head><!-- table: (?P<kind>[\w-]+)(?: (?P<name>[\w.-]+))? -->\n).*?(?P<tail><!-- end of table -->)", re.DOTALL
)


def current(text: str) -> str:
    """Return the text of a page with its marked tables updated."""

    def replace(table: re.Match[str]) -> str:
        return f"{table['head']}\n{TABLES[table['kind']](table['name'] or '')}\n{table['tail']}"

    return _MARKED.sub(replace, text)


def settings_table(name: str) -> str:
    """Render the keys of one table of actionprep.toml, or of a recipe."""
    model = _models()[name]
    rows = []
    for key, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        rows.append((f"`{key}`", _default(default, required=field.is_required()), _text(field.description or "")))
    return _table(("key", "default", "what it means"), rows)


def stages_table(_: str) -> str:
    """Render one row per stage: command, product and inputs."""
    from actionprep.pipeline.index import load_stages, stage_index
    from actionprep.pipeline.stage import ArrayStage

    rows = []
    for name, stage in load_stages().items():
        entry = stage_index()[name]
        of = "the study" if issubclass(stage, ArrayStage) else "each view"
        reads = ", ".join(f"`{one.product}`" for one in stage.inputs(stage.Settings())) or "—"
        rows.append((f"`actionprep {entry.command}`", f"[`{name}`](#{name})", of, reads, _text(entry.help)))
    return _table(("command", "product", "one for", "reads", "what it is for"), rows)


def product_table(name: str) -> str:
    """Render the schema of a product: one row per array, then the attributes of an item."""
    from actionprep.datasets.products.schema import products

    product = products()[name]
    rows = []
    for array in product.arrays:
        chunk = "whole" if array.chunk is None else str(array.chunk)
        what = _text(array.description + (f" ({array.note})" if array.note else ""))
        rows.append((f"`{array.name}`", ", ".join(array.axes), array.dtype, array.unit or "", chunk, what))
    attributes = "".join(f"- `{key}`: {_text(meaning)}\n" for key, meaning in product.attributes.items())
    columns = ("array", "axes", "type", "unit", "chunk", "what it is")
    return f"{_table(columns, rows)}\n`stage` has these attributes:\n\n{attributes}"


def formats_table(kind: str) -> str:
    """Render the video layouts, segment formats or pose formats."""
    from actionprep.api import list_formats

    return _table(
        ("name", "what it is"), [(f"`{name}`", _text(what)) for one, name, what in list_formats() if one == kind]
    )


WRITERS = {"elan": "eaf", "label-studio": "labelstudio", "one-hot": "frames", "via-project": "via"}
"""Names of the writers of annotation formats, where they differ."""


def segment_formats_table(_: str) -> str:
    """Render one row per annotation format: times, the word of `actionprep export`, and the kind of sample in the tests."""
    from actionprep.datasets.annotation_writers.index import SEGMENT_WRITERS
    from actionprep.datasets.annotations import segment_formats

    samples = tomllib.loads((ROOT / "tests/fixtures/real_samples.toml").read_text(encoding="utf-8"))["segments"]
    real = {sample["format"] for sample in samples}
    rows = []
    for name, format in segment_formats().items():
        writer = WRITERS.get(name, name)
        written = f"`{writer}`" if writer in SEGMENT_WRITERS else ""
        sample = "real" if name in real else "made"
        rows.append((f"`{name}`", _text(format.description), _text(format.times), written, sample))
    return _table(("name", "what it is", "times", "export", "sample"), rows)


def pose_formats_table(_: str) -> str:
    """Render one row per pose format: coordinates, times, the word of `actionprep export`, and the kind of sample."""
    from actionprep.datasets.poses.formats import FORMATS
    from actionprep.datasets.poses.writers import WRITERS

    samples = tomllib.loads((ROOT / "tests/fixtures/real_samples.toml").read_text(encoding="utf-8"))["poses"]
    real = {sample["format"] for sample in samples}
    words = {writer.reads: writer.name for writer in WRITERS.values()}
    rows = [
        (
            f"`{name}`",
            _text(format.title),
            _text(format.coordinates),
            _text(format.times),
            f"`{words[name]}`" if name in words else "",
            "real" if name in real else "made",
        )
        for name, format in FORMATS.working().items()
    ]
    return _table(("name", "what it is", "coordinates", "times", "export", "sample"), rows)


def presets_table(_: str) -> str:
    """Render one row per list preset: unit, first frame, end and time 0."""
    from actionprep.datasets.annotation_formats.lists import PRESETS, load_preset

    rows = []
    for path in sorted(PRESETS.glob("*.toml")):
        preset = load_preset(path)
        unit = {"": "full clips", "frame": f"frames from {preset.first_number}"}.get(preset.unit, preset.unit)
        end = (
            preset.end if preset.unit and "num_frames" not in preset.fields else "" if not preset.unit else "exclusive"
        )
        chosen = "yes" if preset.recognized else "no"
        rows.append((f"`{path.stem}`", _text(preset.title), unit, end, _text(preset.time_zero), chosen))
    return _table(("preset", "list", "times", "end", "time 0", "detected"), rows)


def backends_table(kind: str) -> str:
    """Render the trackers, mask sources, frame samplers or pose backends, from their docstrings."""
    from actionprep.pipeline.keyframes import SAMPLERS
    from actionprep.pipeline.mask_sources import MASK_SOURCES
    from actionprep.pipeline.trackers import TRACKERS

    if kind == "pose":
        from actionprep.pipeline.pose_backends import POSE_BACKENDS

        rows = [(f"`{name}`", _text(POSE_BACKENDS.help(name))) for name in POSE_BACKENDS]
        return _table(("backend", "what it does"), rows)
    registry = {"trackers": TRACKERS, "mask-sources": MASK_SOURCES, "samplers": SAMPLERS}[kind]
    rows = [(f"`{name}`", _text(registry.help(name))) for name in registry]
    return _table(("name", "what it does"), rows)


def skeletons_table(_: str) -> str:
    """Render one row per skeleton layout."""
    from actionprep.api import list_skeletons

    return _table(
        ("layout", "joints", "limbs", "pairs", "", "what it is"),
        [
            (
                f"`{one['name']}`",
                str(len(one["joints"])),
                str(one["limbs"]),
                str(one["pairs"]),
                f"{one['dimensions']}D",
                _text(one["title"]),
            )
            for one in list_skeletons()
        ],
    )


def recipes_table(_: str) -> str:
    """Render one row per recipe."""
    from actionprep.training.recipes import find_recipe, recipe_names

    rows = []
    for name in recipe_names():
        recipe = find_recipe(name)
        rows.append((f"`{name}`", f"`{recipe.product}`", _text(recipe.doc.partition(". ")[0].removesuffix(".") + ".")))
    return _table(("recipe", "reads", "what it is"), rows)


def checkpoints_table(_: str) -> str:
    """Render one row per published checkpoint: file, layout, recipe, license, SHA-256 and source."""
    from actionprep.training.models.published.catalog import published_checkpoints

    rows = []
    for entry in published_checkpoints():
        hash_text = f"`{entry.sha256}`" if entry.sha256 else "not on that page"
        link = f"[{_text(entry.name)}]({entry.url})"
        rows.append((link, f"`{entry.family}`", f"`{entry.recipe}`", entry.license, hash_text, f"<{entry.source}>"))
    return _table(("checkpoint", "layout", "fits the recipe", "license", "SHA-256", "listed at"), rows)


def benchmarks_table(name: str) -> str:
    """Render the ratios of all benchmarks, or of one, from benchmarks/results."""
    rows = []
    for path in sorted((ROOT / "benchmarks" / "results").glob(f"{name or '*'}.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for mark in found.get("marks", ()):
            bound = f"{'≥' if mark['at_least'] else '≤'} {mark['bound']:g}"
            value = f"{mark['value']:,.0f}" if mark["value"] >= 100 else f"{mark['value']:.3g}"
            rows.append(
                (_text(mark["what"]), value, bound, "yes" if mark["met"] else "**no**", f"`benchmarks/{path.stem}.py`")
            )
    return _table(("what is compared", "ratio", "aim", "met", "script"), rows)


CHOSEN_BENCHMARKS = (
    (
        "read",
        "112 px clips: store beside decoding on demand",
        "Reading a random 112 px clip from the store, compared with decoding it from the video",
        "{:,.0f} times faster",
    ),
    (
        "epoch",
        "epoch of view-transformer: stored tracks / tracking in the loop (lk)",
        "One training epoch on stored point tracks, compared with tracking inside the training loop",
        "{:.0f} times faster",
    ),
    (
        "heatmaps",
        "joint, 2 persons: ours, buffer, times the loop",
        "Rendering joint heatmaps of two persons, compared with a NumPy loop over frames and joints",
        "{:.0f} times faster",
    ),
    (
        "models",
        "vivit-frames 8 x 224, width 384, batch 1, float32: peak memory, ours / transformers",
        "Peak memory of a ViViT training step, compared with Hugging Face transformers",
        "{:.0%}",
    ),
    (
        "step",
        "view-transformer: our step / bare loop",
        "Time of a training step, compared with a bare PyTorch loop",
        "{:.0%}",
    ),
)
"""Results shown in the README: file, mark, description, format of the ratio."""


def chosen_benchmarks_table(_: str) -> str:
    """Render the results of `CHOSEN_BENCHMARKS` from benchmarks/results.

    Raises:
        ValueError: If a results file no longer has a chosen mark.
    """
    rows = []
    for name, mark, description, ratio in CHOSEN_BENCHMARKS:
        path = ROOT / "benchmarks" / "results" / f"{name}.json"
        values = {entry["what"]: entry["value"] for entry in json.loads(path.read_text(encoding="utf-8"))["marks"]}
        if mark not in values:
            raise ValueError(f"{path.name} has no mark {mark!r}; update CHOSEN_BENCHMARKS. Marks: {', '.join(values)}.")
        rows.append((description, ratio.format(values[mark]), f"`benchmarks/{name}.py`"))
    return _table(("what is compared", "result", "script"), rows)


def machines_table(_: str) -> str:
    """Render the date, machine and versions of each benchmark run."""
    rows = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        machine = found["machine"]
        facts = [machine.get("cpu") or machine.get("processor"), f"{machine['cores']} cores"]
        facts += [f"{machine['memory_gib']} GiB"] if "memory_gib" in machine else []
        facts += [machine["gpu"]] if machine.get("gpu") else []
        facts += [f"load {machine['load_at_end'][0]:g} at the end"] if "load_at_end" in machine else []
        where = ", ".join(facts)
        versions = ", ".join(
            f"{name} {found['versions'][name]}" for name in ("python", "numpy", "torch") if name in found["versions"]
        )
        rows.append((f"`{path.name}`", found.get("date", ""), where, versions))
    return _table(("results", "date", "machine", "versions"), rows)


def storage_table(_: str) -> str:
    """Render size and speed of each frame storage, from benchmarks/results/storage.json."""
    found = json.loads((ROOT / "benchmarks/results/storage.json").read_text(encoding="utf-8"))
    settings = found["settings"]
    [sides] = found["groups"].values()
    rows = []
    for name, side in sides.items():
        nbytes = settings["bytes_a_frame"]
        rows.append(
            (
                f"`{name}`",
                f"{nbytes[name] / 1000:,.0f} kB",
                f"{nbytes[name] / nbytes['raw']:.0%}",
                f"{settings['seconds_to_write'][name] / settings['frames'] * 1000:.1f} ms",
                f"{side['median_s'] / (side['median_s'] * side['clips_per_s']) * 1000:.1f} ms",
            )
        )
    return _table(("storage", "a frame", "of raw", "to write a frame", f"to read {settings['clip']} frames"), rows)


def heatmap_bytes_table(_: str) -> str:
    """Render the bytes of a clip as heatmaps and as keypoints, from benchmarks/results/heatmaps.json."""
    found = json.loads((ROOT / "benchmarks/results/heatmaps.json").read_text(encoding="utf-8"))
    nbytes = found["settings"]["bytes_a_clip"]
    whole = nbytes["float32 volume"]
    rows = [(name, f"{count / 1000:,.1f} kB", f"{count / whole:.2%}") for name, count in nbytes.items()]
    return _table(("a clip as", "bytes", "of float32"), rows)


def pose_figures_table(_: str) -> str:
    """Render the detection rate and speed of MediaPipe and its distance to OpenPose, from benchmarks/results/poses.json."""
    found = json.loads((ROOT / "benchmarks/results/poses.json").read_text(encoding="utf-8"))
    rows = found["settings"]["table"]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _table(names, [[row.get(name, "") for name in names] for row in rows])


def precision_table(_: str) -> str:
    """Render the training speed of each precision and memory layout, from benchmarks/results/precision.json."""
    found = json.loads((ROOT / "benchmarks/results/precision.json").read_text(encoding="utf-8"))
    ways = list(dict.fromkeys(way for sides in found["groups"].values() for way in sides if way != "float32"))
    rows = []
    for name, sides in found["groups"].items():
        plain = sides["float32"]["clips_per_s"]
        ratios = [f"{sides[way]['clips_per_s'] / plain:.2f}" if way in sides else "" for way in ways]
        rows.append((f"`{name}`", f"{plain:.1f}", *ratios))
    return _table(("model", "float32, clips/s", *ways), rows)


def torture_table(_: str) -> str:
    """Render the result of each part of `make torture`, from torture/results."""
    rows = []
    for path in sorted((ROOT / "torture" / "results").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        trials = f"{result['count']:,} of {result['full_count']:,} {result['unit']}"
        facts = ", ".join(f"{name}: {value:,}" for name, value in result["facts"].items())
        failures = str(len(result["failures"])) if not result["failures"] else f"**{len(result['failures'])}**"
        rows.append((_text(result["what"]), trials, failures, _text(facts), f"`python -m torture {result['part']}`"))
    return _table(("what happens, and what must hold", "run", "failures", "counts", "command"), rows)


TABLES: dict[str, Callable[[str], str]] = {
    "settings": settings_table,
    "stages": stages_table,
    "product": product_table,
    "formats": formats_table,
    "segment-formats": segment_formats_table,
    "pose-formats": pose_formats_table,
    "list-presets": presets_table,
    "backends": backends_table,
    "recipes": recipes_table,
    "checkpoints": checkpoints_table,
    "benchmarks": benchmarks_table,
    "chosen-benchmarks": chosen_benchmarks_table,
    "machines": machines_table,
    "storage": storage_table,
    "skeletons": skeletons_table,
    "heatmap-bytes": heatmap_bytes_table,
    "pose-figures": pose_figures_table,
    "precision": precision_table,
    "torture": torture_table,
}


def _models() -> dict[str, type]:
    from actionprep.api import settings_models
    from actionprep.datasets.annotation_formats.lists import ListPreset
    from actionprep.datasets.study import StudySettings
    from actionprep.training.inputs.base import find_input, products
    from actionprep.training.recipes import LossSettings, OptimizerSettings, Recipe, ScheduleSettings

    return {
        "study": StudySettings,
        "list-preset": ListPreset,
        **settings_models(),
        "recipe": Recipe,
        "loss": LossSettings,
        "optimizer": OptimizerSettings,
        "schedule": ScheduleSettings,
        **{f"input.{product}": find_input(product).Settings for product in products()},
    }


def _default(value: object, *, required: bool) -> str:
    from pydantic import BaseModel

    if required:
        return "required"
    if value is None:
        return "not set"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _text(text: str) -> str:
    """Escape text for a table cell: one line, no bars, no HTML."""
    text = " ".join(text.split()).replace("|", "\\|").replace("*", "\\*")
    return re.sub(r"<(/?\w+)>", r"&lt;\1&gt;", text)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(columns), " | ".join("---" for _ in columns), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def main() -> int:
    """Write or check all pages."""
    stale = []
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = current(before)
        if after != before:
            stale.append(path.relative_to(ROOT).as_posix())
            if "--check" not in sys.argv[1:]:
                path.write_text(after, encoding="utf-8")
    if stale:
        print(f"{'out of date' if '--check' in sys.argv[1:] else 'updated'}: {', '.join(stale)}")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
