"""Later builds keep what options of a command made."""

from __future__ import annotations

import pytest
from prep_commands import actionprep, document

from actionprep.api import Study
from actionprep.datasets.study import StudyFolder


@pytest.fixture
def study(study: Study) -> Study:
    """A study with snippets of 0.4 s that an option made; the file has 0.8 s and a comment."""
    study.folder.change("study", "stages", ("snippets",))
    study.folder.change("snippets", "length", 800)
    text = study.folder.settings_file.read_text()
    study.folder.settings_file.write_text(f"# my comment\n{text}")
    result = actionprep(study, "snippets", "--length", "400")
    assert result.exit_code == 0
    assert "snippets.length is 400.0 here and 800.0 in actionprep.toml." in result.stdout
    assert "Add --save to write the options into actionprep.toml." in result.stdout
    return study


def length(study: Study) -> float:
    return float(study.store.item("snippets", "default").provenance["settings"]["length"])


def test_build_keeps_what_an_option_made(study):
    digest = study.store.digest()
    result = actionprep(study, "build")
    assert result.exit_code == 0
    assert "Kept: snippets made with length = 400.0 by an option (actionprep.toml: 800.0)." in result.stdout
    assert "build --save" in result.stdout
    assert "build --reset" in result.stdout
    assert study.store.digest() == digest


def test_build_keeps_options_when_another_setting_changes(study):
    study.folder.change("snippets", "stride", 200)
    assert actionprep(study, "build").exit_code == 0
    made = study.store.item("snippets", "default").provenance
    assert (made["settings"]["length"], made["settings"]["stride"]) == (400, 200)
    assert made["command_line"] == {"length": 800}
    assert document(study, "build")["built"] == []


def test_build_reset_rebuilds_with_the_settings_file(study):
    assert actionprep(study, "build", "--reset").exit_code == 0
    study.store.forget_readers()
    assert length(study) == 800
    assert "command_line" not in study.store.item("snippets", "default").provenance


def test_build_save_writes_kept_options_into_the_settings_file(study):
    result = actionprep(study, "build", "--save")
    assert "Saved in actionprep.toml: snippets.length = 400.0." in result.stdout
    assert StudyFolder(study.root).tables["snippets"]["length"] == 400
    assert study.folder.settings_file.read_text().startswith("# my comment\n")
    assert length(study) == 400
    assert "Kept" not in actionprep(study, "build").stdout


def test_build_follows_the_settings_file_once_it_changes(study):
    study.folder.change("snippets", "length", 600)
    assert actionprep(study, "build").exit_code == 0
    study.store.forget_readers()
    assert length(study) == 600


def test_stage_command_without_options_follows_the_settings_file(study):
    assert actionprep(study, "snippets").exit_code == 0
    study.store.forget_readers()
    assert length(study) == 800


def test_stage_command_saves_its_options(study):
    result = actionprep(study, "snippets", "--length", "300", "--save")
    assert "Saved in actionprep.toml: snippets.length = 300.0." in result.stdout
    assert StudyFolder(study.root).tables["snippets"]["length"] == 300
    assert document(study, "build")["built"] == []


def test_options_leave_fingerprint_and_digest_alone(study):
    item = study.store.item("snippets", "default")
    fingerprint, digest = item.fingerprint, study.store.digest()
    actionprep(study, "build", "--save")
    actionprep(study, "build", "--reset")
    study.store.remove(study.store.items("snippets")[0])
    actionprep(study, "build")
    rebuilt = study.store.item("snippets", "default")
    assert "command_line" not in rebuilt.provenance
    assert (rebuilt.fingerprint, study.store.digest()) == (fingerprint, digest)


def test_build_refuses_save_with_reset(study):
    result = actionprep(study, "build", "--save", "--reset")
    assert result.exit_code == 2
    assert "--save and --reset exclude each other: give one of them." in result.stderr


def test_build_save_refuses_several_values(study):
    study.folder.change("study", "stages", ("lowres",))
    for view, size in (("0", "24"), ("1", "32")):
        assert actionprep(study, "lowres", "--views", view, "--sizes", size, "--workers", "0").exit_code == 0
    result = actionprep(study, "build", "--save")
    assert result.exit_code == 2
    assert (
        "Items of 'lowres' were made with sizes = [24] and [32]: actionprep.toml can have one value." in result.stderr
    )
