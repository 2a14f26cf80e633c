"""Check a split for leaks: `actionprep split --check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actionprep.cli import output
from actionprep.cli.options import with_study
from actionprep.json_values import counted

if TYPE_CHECKING:
    from actionprep.api import Study
    from actionprep.api.split_check import SplitCheck

CheckOption = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Check the stored split for leaks: video files, subjects, sessions and near-duplicate clips in two parts. "
        "A split that is not stored, or has other settings here, is made first.",
    ),
]


def check_split(study: Study, given: Mapping[str, Any], *, json: bool, named: Path | None) -> None:
    """Check a split, print its leaks, and exit with 1 if there are any.

    Args:
        study: The study.
        given: Settings from the command line.
        json: Whether to print only a JSON document.
        named: The study that the command line names.
    """
    from actionprep.api.split_check import check_stored_split, num_videos

    name = str(study.stage_settings({"split": given})["split"].name)  # type: ignore[attr-defined]
    stored = {item.recording for item in study.store.items() if item.product == "split"}
    if name not in stored or set(given) - {"name"}:
        study.build("split", overrides={"split": given})
        if not json:
            output.note(f"Made split/{name}.")
    with output.progress_bar("decoding", num_videos(study), "videos", quiet=json) as advance:
        check = check_stored_split(study, name, progress=advance)
    if json:
        output.print_json(
            {
                "split": check.name,
                "by": check.by,
                "parts": list(check.parts),
                "leaks": [asdict(leak) for leak in check.leaks],
                "notes": list(check.notes),
                "similarity": round(check.similarity, 3),
                "compared": check.num_compared,
                "not_compared": dict(check.not_compared),
            }
        )
    else:
        _print(check, named)
    if check.leaks:
        raise typer.Exit(1)


def _print(check: SplitCheck, named: Path | None) -> None:
    if check.leaks:
        has_folds = len(check.parts) > 1
        output.print_table(
            f"Leaks of split/{check.name}",
            ("kind", "in one part", "in another part", "detail", *(("fold",) if has_folds else ())),
            [
                (
                    leak.kind,
                    f"{leak.name} ({leak.part})",
                    f"{leak.other} ({leak.other_part})",
                    leak.detail,
                    *((leak.fold,) if has_folds else ()),
                )
                for leak in check.leaks
            ],
        )
    for note in check.notes:
        output.warn(note)
    if check.not_compared:
        reasons = sorted(set(check.not_compared.values()))
        first = next(iter(check.not_compared.items()))
        output.warn(
            f"{counted(len(check.not_compared), 'view')} could not be compared with others, such as {first[0]} "
            f"({first[1]}){'' if len(reasons) == 1 else f', for {len(reasons)} reasons; --json lists them'}."
        )
    folds = "" if len(check.parts) == 1 else f" in {counted(len(check.parts), 'fold')}"
    recordings = max(sum(parts.values()) for parts in check.parts)
    output.note(
        f"Checked {counted(recordings, 'recording')}{folds}, {counted(check.num_compared, 'view')} for near-duplicates "
        f"(similarity from {check.similarity:.2f}): {counted(len(check.leaks), 'leak')}."
    )
    if check.leaks:
        output.note(
            "Put recordings that belong together into one part: give them one subject or session, and split by it."
        )
    else:
        output.print_next(with_study("actiontrain fit", named), "trains on the split")
