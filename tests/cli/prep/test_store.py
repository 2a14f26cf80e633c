"""The commands that look after the store."""

from __future__ import annotations

import shutil

from prep_commands import actionprep, document

from actionprep.api import Study


def test_status_says_which_options_of_a_command_a_build_would_not_keep(study: Study) -> None:
    study.folder.change("study", "stages", ("lowres",))
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    assert "a build would make" not in actionprep(study, "status").stderr
    assert actionprep(study, "lowres", "--sizes", "24", "--filter", "bicubic", "--workers", "0").exit_code == 0
    assert actionprep(study, "status").stderr == (
        '\'lowres\' was made with filter = "bicubic", sizes = [24], and actionprep.toml says filter = "area", sizes = '
        "[16]: a build would make 4 item(s) of it anew. To keep what is there, write its settings under [lowres].\n"
    )
    [lowres] = [one for one in document(study, "status")["products"] if one["product"] == "lowres"]
    assert lowres["made_otherwise"][1] == {"setting": "sizes", "stored": [[24]], "file": [16], "items": 4}


def test_the_status_tells_what_keeps_a_build_from_going_on(study: Study) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    (study.root / "offsets.csv").write_text("view,offset\n1,99\n")
    study.folder.change("study", "offsets", "offsets.csv")
    found = document(study, "status")
    assert found["problem"].startswith(
        "The views of recording 'first' are not aligned to 0.05 s: the views have no common time"
    )
    assert [one["items"] for one in found["products"]] == [4]
    result = actionprep(study, "track", "--workers", "0")
    assert result.exit_code == 2
    assert "name a table with each view's clock (offsets)" in result.stderr


def test_verify_and_repair_make_only_what_is_damaged_anew(study: Study) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    actionprep(study, "snippets", "--length", "400", "--name", "short")
    actionprep(study, "snippets", "--length", "800", "--name", "long")
    before = study.store.digest()
    assert document(study, "verify") == {"items": 6, "damaged": [], "repaired": [], "not_repaired": {}}
    whole = {key: (study.store.path / key.path / "zarr.json").stat().st_ino for key in study.store.items()}
    (study.store.path / "lowres/first/0/zarr.json").unlink()
    (study.store.path / "lowres/second/1/rgb_16/zarr.json").write_text("{")
    for name in ("short", "long"):
        chunk = next(path for path in (study.store.path / "snippets" / name / "onset").rglob("c/*") if path.is_file())
        chunk.write_bytes(bytes(len(chunk.read_bytes())))
    damaged = {"lowres/first/0", "lowres/second/1", "snippets/short", "snippets/long"}
    assert actionprep(study, "verify").exit_code == 1
    assert actionprep(study, "digest").exit_code == 1
    found = document(study, "verify", "--repair")
    assert {one["item"] for one in found["damaged"]} == set(found["repaired"]) == damaged
    assert found["not_repaired"] == {}
    assert Study(study.folder).store.digest() == before
    kept = {key for key in whole if str(key) not in damaged}
    assert all((study.store.path / key.path / "zarr.json").stat().st_ino == whole[key] for key in kept)


def test_a_repair_that_cannot_be_done_leaves_the_good_items_and_says_why(study: Study) -> None:
    assert actionprep(study, "lowres", "--workers", "0").exit_code == 0
    shutil.rmtree(study.root / "videos/second")
    study.scan()
    for place in ("first/0", "second/0"):
        (study.store.path / f"lowres/{place}/time/zarr.json").unlink()
    result = actionprep(study, "verify", "--repair")
    assert result.exit_code == 1
    assert "1 items made anew." in result.stdout
    assert "lowres/second/0  nothing in the catalog makes it any more: 'actionprep gc' deletes it" in result.stdout
    assert len(study.store.items("lowres")) == 4


def test_a_store_of_a_newer_schema_is_refused_by_every_command(study: Study) -> None:
    assert study.store.items() == []
    path = study.store.path / "zarr.json"
    path.write_text(path.read_text().replace('"actionprep_schema": 1', '"actionprep_schema": 99'))
    for command in ("status", "plan", "verify", "digest", "track"):
        result = actionprep(study, command)
        assert result.exit_code == 2
        assert "was written with schema 99" in result.stderr
