"""The commands that check and repair the store."""

from __future__ import annotations

import json
import shutil

from prep_commands import actionprep, document

from actionprep.api import Study
from actionprep.datasets.store.metadata import group_text, root_text


def test_status_names_command_options_that_a_build_would_drop(study: Study) -> None:
    study.folder.change("study", "stages", ("lowres",))
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    assert "A build would rebuild" not in actionprep(study, "status").stderr
    assert actionprep(study, "lowres", "--sizes", "24", "--filter", "bicubic", "--workers", "0").exit_code == 0
    [lowres] = [row for row in document(study, "status")["products"] if row["product"] == "lowres"]
    assert (lowres["against_settings"], lowres["made_otherwise"]) == ("up to date", [])
    assert lowres["kept_options"] == [
        {"setting": "filter", "stored": ["bicubic"], "file": "area"},
        {"setting": "sizes", "stored": [[24]], "file": [16]},
    ]
    study.folder.change("lowres", "filter", "bilinear")
    study.folder.change("lowres", "sizes", (32,))
    assert actionprep(study, "status").stderr == (
        '\'lowres\' was built with filter = "bicubic", sizes = [24], but actionprep.toml has filter = "bilinear", sizes = '
        "[32]. A build would rebuild 4 items. To keep the stored items, write their settings under [lowres].\n"
    )
    [lowres] = [row for row in document(study, "status")["products"] if row["product"] == "lowres"]
    assert lowres["made_otherwise"][1] == {"setting": "sizes", "stored": [[24]], "file": [32], "items": 4}
    assert lowres["kept_options"] == []


def test_status_reports_what_blocks_a_build(study: Study) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    (study.root / "offsets.csv").write_text("view,offset\n1,99\n")
    study.folder.change("study", "offsets", "offsets.csv")
    actual = document(study, "status")
    assert actual["problem"].startswith(
        "The views of recording 'first' are not aligned to 0.05 s: the views have no common time"
    )
    assert [entry["items"] for entry in actual["products"]] == [4]
    result = actionprep(study, "track", "--workers", "0")
    assert result.exit_code == 2
    assert "name a table with each view's clock (offsets)" in result.stderr


def test_verify_and_repair_rebuild_only_damaged_items(study: Study) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    actionprep(study, "snippets", "--length", "400", "--name", "short")
    actionprep(study, "snippets", "--length", "800", "--name", "long")
    before = study.store.digest()
    assert document(study, "verify") == {
        "items": 6, "damaged": [], "repaired": [], "not_repaired": {}, "notes": [], "without_checksum": 0,
    }  # fmt: skip
    whole = {key: (study.store.path / key.path / "zarr.json").stat().st_ino for key in study.store.items()}
    (study.store.path / "lowres/first/0/zarr.json").unlink()
    (study.store.path / "lowres/second/1/rgb_16/zarr.json").write_text("{")
    for name in ("short", "long"):
        chunk = next(path for path in (study.store.path / "snippets" / name / "onset").rglob("c/*") if path.is_file())
        chunk.write_bytes(bytes(len(chunk.read_bytes())))
    damaged = {"lowres/first/0", "lowres/second/1", "snippets/short", "snippets/long"}
    assert actionprep(study, "verify").exit_code == 1
    assert actionprep(study, "digest").exit_code == 1
    actual = document(study, "verify", "--repair")
    assert {entry["item"] for entry in actual["damaged"]} == set(actual["repaired"]) == damaged
    assert actual["not_repaired"] == {}
    assert Study(study.folder).store.digest() == before
    kept = {key for key in whole if str(key) not in damaged}
    assert all((study.store.path / key.path / "zarr.json").stat().st_ino == whole[key] for key in kept)


def test_failed_repair_keeps_intact_items_and_states_the_reason(study: Study) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    shutil.rmtree(study.root / "videos/second")
    study.scan()
    for place in ("first/0", "second/0"):
        (study.store.path / f"lowres/{place}/time/zarr.json").unlink()
    result = actionprep(study, "verify", "--repair")
    assert result.exit_code == 1
    assert "1 item rebuilt." in result.stdout
    assert "lowres/second/0  nothing in the catalog makes it any more: 'actionprep gc' deletes it" in result.stdout
    assert len(study.store.items("lowres")) == 4


def change_setting(study: Study, item: str, before: str, after: str) -> None:
    path = study.store.path / item / "zarr.json"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_repair_does_not_use_changed_setting(study: Study) -> None:
    actionprep(study, "lowres", "--sizes", "24", "--workers", "0")
    before = study.store.digest()
    change_setting(study, "lowres/first/0", '"filter": "area"', '"filter": "bicubic"')
    actual = document(study, "verify")
    assert actual["damaged"] == [
        {
            "item": "lowres/first/0",
            "reason": "Damaged item lowres/first/0: its metadata (zarr.json) is not what was written.",
        }
    ]
    result = actionprep(study, "verify", "--repair")
    assert result.exit_code == 0
    assert "It is rebuilt with the settings of the 3 intact items of 'lowres'." in result.stderr
    assert Study(study.folder).store.digest() == before
    made = study.store.metadata(study.store.items("lowres")[0])
    assert made["provenance"]["settings"]["filter"] == "area"


def test_repair_uses_settings_file_where_intact_items_differ(study: Study) -> None:
    actionprep(study, "lowres", "--sizes", "24", "--workers", "0")
    actionprep(study, "lowres", "--sizes", "32", "--views", "1", "--workers", "0")
    change_setting(study, "lowres/first/0", '"filter": "area"', '"filter": "arda"')
    result = actionprep(study, "verify", "--repair")
    assert "It is rebuilt with the settings of actionprep.toml." in result.stderr
    assert study.store.metadata(study.store.items("lowres")[0])["provenance"]["settings"]["sizes"] == [16]


def test_build_does_not_use_changed_setting_of_input(study: Study) -> None:
    actionprep(study, "track", "--grid", "4", "--workers", "0")
    before = [study.store.metadata(key)["digest"] for key in study.store.items("masks")]
    change_setting(study, "masks/first/0", '"threshold": 16.0', '"threshold": 36.0')
    status = actionprep(study, "status")
    assert "Damaged items of 'masks': 1. Run 'actionprep verify --repair'." in status.stderr
    assert actionprep(study, "digest").exit_code == 1
    result = actionprep(study, "track", "--grid", "5", "--workers", "0")
    assert "masks/first/0: its metadata (zarr.json) is not what was written. It is rebuilt with the" in result.stderr
    assert [study.store.metadata(key)["digest"] for key in study.store.items("masks")] == before


def test_gc_leaves_items_with_damaged_metadata(study: Study) -> None:
    actionprep(study, "lowres", "--workers", "0")
    shutil.rmtree(study.root / "videos/second")
    actionprep(study, "scan")
    change_setting(study, "lowres/second/0", '"filter": "area"', '"filter": "arda"')
    actual = document(study, "gc", "--yes")
    assert actual["stray"] == ["lowres/second/1"]
    reason = "Damaged item lowres/second/0: its metadata (zarr.json) is not what was written."
    assert actual["damaged"] == [{"item": "lowres/second/0", "reason": reason}]
    assert not (study.store.path / "lowres/second/1").exists()
    result = actionprep(study, "verify", "--repair")
    assert result.exit_code == 1
    assert "delete its folder" in result.stdout
    assert (study.store.path / "lowres/second/0/zarr.json").exists()


def test_repair_writes_metadata_of_folders_again(study: Study) -> None:
    actionprep(study, "lowres", "--workers", "0")
    before = study.store.digest()
    for place in ("zarr.json", "lowres/zarr.json", "lowres/first/zarr.json"):
        path = study.store.path / place
        path.write_bytes(path.read_bytes().replace(b'"group"', b'"grouq"'))
    result = actionprep(study, "digest")
    assert result.exit_code == 2
    assert "'actionprep verify --repair' writes it again" in result.stderr
    places = ["zarr.json", "lowres/zarr.json", "lowres/first/zarr.json"]
    assert [entry["item"] for entry in document(study, "verify")["damaged"]] == places
    assert document(study, "verify", "--repair")["repaired"] == places
    assert document(study, "verify")["damaged"] == []
    assert Study(study.folder).store.digest() == before


def test_store_of_schema_1_is_not_rebuilt(study: Study) -> None:
    actionprep(study, "lowres", "--workers", "0")
    before = study.store.digest()
    for path in [
        study.store.path / "zarr.json",
        *(study.store.path / key.path / "zarr.json" for key in study.store.items()),
    ]:
        attributes = json.loads(path.read_text())["attributes"]
        kept = {name: value for name, value in attributes.items() if name not in ("arrays", "metadata_sha256")}
        if "actionprep_schema" in kept:
            kept["actionprep_schema"] = 1
        path.write_text(group_text(kept))
    [row] = document(study, "plan", "lowres")["stages"].values()
    assert (row["build"], row["done"]) == (0, 4)
    assert actionprep(study, "digest").stdout.strip() == before
    result = actionprep(study, "verify")
    assert result.exit_code == 0
    assert "Items of an older schema without a checksum of their metadata: 4." in result.stdout


def test_a_store_of_a_newer_schema_is_refused_by_every_command(study: Study) -> None:
    assert study.store.items() == []
    path = study.store.path / "zarr.json"
    path.write_text(root_text(99))
    for command in ("status", "plan", "verify", "digest", "track"):
        result = actionprep(study, command)
        assert result.exit_code == 2
        assert "was written with schema 99" in result.stderr
