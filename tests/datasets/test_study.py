"""The study folder and its settings file."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actionprep.datasets.study import StudyFolder, StudySettings, find_study, init_study, render_settings
from actionprep.errors import UserError
from actionprep.settings import Settings, option


class Inner(Settings):
    """Nested settings."""

    rate: float | None = option(0.5, "A rate.")
    names: tuple[str, ...] = option((), "Names.")


class Sample(Settings):
    """A field of each kind."""

    length: float | None = option(None, "Length in ms.")
    truncate: float | None = option(3.0, "Sigmas.")
    grid: int = option(20, "Points a side.", gt=0)
    sizes: tuple[int, ...] = option((112,), "Short sides.")
    tracker: Literal["lk", "cotracker"] = option("lk", "Which tracker.")
    on: bool = option(True, "A switch.")
    text: str = option("", "Any text.")
    table: dict[str, str] = option({}, "Names by name.")
    inner: Inner = option(Inner(), "Nested.")


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), max_size=30).filter(lambda text: text != "none")
samples = st.builds(
    Sample,
    length=st.none() | numbers,
    truncate=st.none() | numbers,
    grid=st.integers(1, 10**9),
    sizes=st.lists(st.integers(-5, 5), max_size=4).map(tuple),
    tracker=st.sampled_from(["lk", "cotracker"]),
    on=st.booleans(),
    text=texts,
    table=st.dictionaries(texts, texts, max_size=3),
    inner=st.builds(Inner, rate=st.none() | numbers, names=st.lists(texts, max_size=3).map(tuple)),
)


def study_with(tmp_path: Path, text: str) -> StudyFolder:
    (tmp_path / "actionprep.toml").write_text(text)
    return StudyFolder(tmp_path)


@given(settings=samples, comments=st.booleans())
def test_settings_read_back_what_they_render(tmp_path_factory, settings, comments):
    folder = study_with(tmp_path_factory.mktemp("study"), render_settings({"sample": settings}, comments=comments))
    assert folder.settings_for("sample", Sample) == settings


def test_init_writes_choices_and_leaves_the_rest_as_comments(tmp_path):
    folder = init_study(
        tmp_path / "new",
        StudySettings(layout="views"),
        chosen={"sample": {"tracker": "cotracker"}},
        models={"sample": Sample},
        notes={"sample": "CoTracker is at hand."},
    )
    text = folder.settings_file.read_text()
    assert tomllib.loads(text) == {
        "study": {"layout": "views", "videos": "videos", "pattern": "{recording}/cam{view}.mp4"},
        "sample": {"tracker": "cotracker"},
    }
    assert "# CoTracker is at hand.\n[sample]" in text
    assert "# Points a side.\n# grid = 20\n" in text
    assert folder.study.layout == "views"


def test_init_leaves_a_study_alone_unless_forced(tmp_path):
    init_study(tmp_path, StudySettings())
    with pytest.raises(UserError, match=r"is already a study: it has an actionprep\.toml.*--force"):
        init_study(tmp_path, StudySettings())
    init_study(tmp_path, StudySettings(name="other"), force=True)
    assert StudyFolder(tmp_path).name == "other"


def test_init_checks_what_was_chosen(tmp_path):
    with pytest.raises(UserError, match=r"Wrong value for 'grid' in \[sample\]: got 0"):
        init_study(tmp_path, StudySettings(), chosen={"sample": {"grid": 0}}, models={"sample": Sample})
    assert not (tmp_path / "actionprep.toml").exists()


def test_a_study_is_found_from_folders_below(tmp_path):
    init_study(tmp_path, StudySettings())
    below = tmp_path / "videos" / "wave"
    below.mkdir(parents=True)
    assert find_study(below).root == tmp_path
    assert find_study(study=tmp_path).root == tmp_path
    assert find_study(study=tmp_path / "actionprep.toml").root == tmp_path


def test_missing_study_error_names_the_command_to_create_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        find_study()
    assert str(error.value) == (
        f"No study here: neither {tmp_path} nor a folder above it has an actionprep.toml. "
        "Run 'actionprep init' in the folder of your study, or give its folder with --study DIR."
    )
    with pytest.raises(UserError, match=r"is not a study: it has no actionprep\.toml\. Run 'actionprep init' there"):
        find_study(study=tmp_path)
    with pytest.raises(UserError, match=r"is not a study: it is not a folder"):
        find_study(study=tmp_path / "absent")


def test_an_unknown_key_is_named_with_the_nearest_right_one(tmp_path):
    folder = study_with(tmp_path, "[sample]\ngird = 3\n")
    with pytest.raises(UserError) as error:
        folder.settings_for("sample", Sample)
    assert str(error.value) == (
        f"Unknown setting 'gird' in [sample] in {tmp_path}/actionprep.toml. Did you mean 'grid'? Known settings: "
        "length, truncate, grid, sizes, tracker, on, text, table, inner."
    )


def test_an_unknown_table_is_named_with_the_nearest_right_one(tmp_path):
    folder = study_with(tmp_path, "[smaple]\ngrid = 3\n")
    with pytest.raises(UserError) as error:
        folder.resolved({"sample": Sample})
    assert str(error.value) == (
        f"Unknown table [smaple] in {tmp_path}/actionprep.toml. Did you mean 'sample'? Known tables: sample, study."
    )


def test_a_wrong_value_is_named_with_its_place(tmp_path):
    folder = study_with(tmp_path, "[sample]\ngrid = 0\n")
    with pytest.raises(UserError, match=r"Wrong value for 'grid' in \[sample\] in .*got 0\. Give more than 0"):
        folder.settings_for("sample", Sample)


def test_overrides_win_over_the_file_and_none_leaves_it(tmp_path):
    folder = study_with(tmp_path, "[sample]\ngrid = 3\nlength = 5.0\n")
    settings = folder.settings_for("sample", Sample, {"grid": 7, "length": None, "tracker": None})
    assert (settings.grid, settings.length, settings.tracker) == (7, 5.0, "lk")
    assert folder.settings_for("sample", Sample, {"length": "none"}).length is None
    with pytest.raises(UserError, match=r"Wrong value for --grid: got -1"):
        folder.settings_for("sample", Sample, {"grid": -1})


def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path):
    folder = study_with(tmp_path, "[study]\nname = wave\n")
    with pytest.raises(UserError, match=r"actionprep\.toml is not valid TOML: .*line 2"):
        _ = folder.tables
    folder = study_with(tmp_path, "grid = 3\n")
    with pytest.raises(UserError, match=r"Key 'grid' in .* is in no table"):
        _ = folder.tables


def test_changing_a_key_keeps_comments(tmp_path):
    folder = study_with(tmp_path, "# mine\n[sample] # yes\ngrid = 3 # points\n")
    folder.change("sample", "grid", 5)
    folder.change("other", "length", None)
    assert folder.settings_file.read_text() == '# mine\n[sample] # yes\ngrid = 5 # points\n\n[other]\nlength = "none"\n'


def test_paths_start_at_the_study_and_urls_stay(tmp_path):
    folder = study_with(tmp_path, '[study]\nstore = "s3://bucket/store"\n')
    assert folder.store == "s3://bucket/store"
    assert StudyFolder(tmp_path).relative(tmp_path / "videos" / "a.mp4") == "videos/a.mp4"
    assert StudyFolder(tmp_path).relative("/elsewhere/a.mp4") == "/elsewhere/a.mp4"
    assert study_with(tmp_path, "").store == str(tmp_path / "store")


def test_study_in_a_folder_that_is_no_text_is_refused(tmp_path):
    root = tmp_path / os.fsdecode(b"lat\xe9in") / "study"
    root.mkdir(parents=True)
    for make in (lambda: init_study(root, StudySettings()), lambda: StudyFolder(root)):
        with pytest.raises(
            UserError, match=r"The folder 'lat.in' in the path of the study .* is not UTF-8 text\. Rename"
        ):
            make()
