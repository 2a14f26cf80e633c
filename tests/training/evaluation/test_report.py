import csv
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from training_fakes import make_store, tiny_recipe

from actionprep.datasets.label_colors import label_colors
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.evaluation.report import confusion_section, report_html, views_section
from actionprep.training.evaluation.report_charts import line_chart, reliability_chart, svg
from actionprep.training.fit import fit
from actionprep.training.run import Run, validation_sentence
from actionprep.training.test import run_test

VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """Check that tags close in order, and collect the text and the resources of the page."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.fetched = [], [], []

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(run: Run) -> Page:
    page = Page()
    page.feed(report_html(run))
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    store = make_store(folder / "store", subjects=4, views=("0", "1"))
    result = fit(store, tiny_recipe(epochs=2), folder / "run", split=SplitChoice(test=("4",)), tensorboard=False)
    before = read(result)
    assert "not tested yet" in " ".join(before.text)
    run_test(result, store, repeats=20)
    return result


def test_report_closes_its_tags_and_fetches_nothing(run):
    assert read(run).fetched == []


def test_the_page_shows_curves_confusion_and_every_table(run):
    text = " ".join(read(run).text)
    for part in ("Curves", "Confusion", "Classes", "Subjects", "Views", "Split", "all settings", "95 % interval"):
        assert part in text
    assert f"{run.tested['metrics']['accuracy'] * 100:.1f} %" in text


def test_report_shows_the_chosen_epoch_and_its_validation(run, tmp_path):
    text = " ".join(read(run).text)
    assert validation_sentence(run) in text
    assert "val macro F1" in text
    rows = run.facts["split"]["rows"]
    assert f"snippets, validated on {len(rows['val'])}" in text
    store = Store(run.store)
    refitted = fit(
        store, tiny_recipe(epochs=1, refit=True), tmp_path / "refit", split=SplitChoice(test=("4",)), tensorboard=False
    )
    counts = {part: len(rows) for part, rows in refitted.facts["split"]["rows"].items()}
    text = " ".join(read(refitted).text)
    assert "in epoch 1, the only validated epoch, before the refit on train and val." in text
    assert f"{counts['train'] + counts['val']} trained on snippets, {counts['val']} of them held out for val" in text
    plain = fit(
        store, tiny_recipe(epochs=1), tmp_path / "plain", split=SplitChoice(test=("4",), val_share=0.0),
        tensorboard=False,
    )  # fmt: skip
    text = " ".join(read(plain).text)
    assert "Nothing was validated: the weights are those of the last epoch." in text
    assert "snippets, without validation" in text


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ((0.5, 0.5, 0.5), "All views together reach 50.0 %, as much as the best single views (left, right)."),
        ((0.5, 0.25, 0.5), "All views together reach 50.0 %, as much as the best single view (left)."),
        ((0.5, 0.25, 0.75), "All views together reach 75.0 %, 25.0 points above the best single view (left)."),
        ((0.5, 0.5, 0.25), "All views together reach 25.0 %, 25.0 points below the best single views (left, right)."),
    ],
)
def test_views_section_names_all_best_single_views(accuracies, expected):
    result = [
        {"views": name, "num_views": len(name.split()), "accuracy": accuracy, "macro_f1": 0.5}
        for name, accuracy in zip(("left", "right", "left right"), accuracies, strict=True)
    ]
    assert expected in views_section(result)["sentence"]


@pytest.mark.parametrize(("num_classes", "width"), [(3, 46), (20, 37), (60, 24)])
def test_confusion_section_narrows_columns_with_the_classes(num_classes, width):
    labels = [f"class number {index:02d}" for index in range(num_classes)]
    section = confusion_section(np.eye(num_classes, dtype=np.int64), labels, label_colors(labels))
    assert section["cell_width"] == width
    if width > 24:  # then all of it fits a page of 938 px
        assert 7 * len(labels[0]) + 14 + num_classes * width + 64 <= 938


def charts():
    bins = [{"count": 5, "confidence": 1.0, "accuracy": 1.0}, {"count": 1, "confidence": 0.1, "accuracy": 0.0}]
    yield reliability_chart(bins, "#000000")
    yield line_chart([("val_accuracy", [(1, 0.25)]), ("val_macro_f1", [(1, 0.5)])], share=True)
    yield line_chart([("train_loss", [(1, 2.5), (2, math.nan), (40, 1000.5)])], share=False)


def test_charts_keep_their_texts_inside():
    for figure in charts():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        box = figure.get_tightbbox(canvas.get_renderer())
        width, height = figure.get_size_inches()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_line_chart_draws_finite_values_over_epochs():
    [axes] = line_chart([("val_loss", [(1, 2.0), (2, math.nan), (3, 1.0)])], share=False).axes
    [line] = axes.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 3], [2.0, 1.0])
    assert line.get_label() == "val loss 1.000"


def test_reliability_chart_sizes_markers_by_count():
    bins = [{"count": 1, "confidence": 0.25, "accuracy": 0.5}, {"count": 4, "confidence": 0.75, "accuracy": 0.5}]
    [axes] = reliability_chart(bins, "#000000").axes
    [markers] = axes.collections
    assert markers.get_offsets().tolist() == [[0.25, 0.5], [0.75, 0.5]]
    small, large = markers.get_sizes()
    assert 1 < large / small <= 4


def test_svg_is_reproducible_escaped_and_in_colors_of_the_page():
    first, second = (svg(next(charts()), "<a> & b") for _ in range(2))
    assert first == second
    assert first.startswith("<svg role='img' aria-label='&lt;a&gt; &amp; b' ")
    assert "var(--soft)" in first
    figure = line_chart([("<b>loss</b>", [(1, 2.0)])], share=False)
    assert "&lt;b&gt;loss&lt;/b&gt;" in svg(figure, "loss")


def test_report_has_unique_identifiers(run):
    identifiers = re.findall(r' id="([^"]+)"', report_html(run))
    assert identifiers
    assert len(set(identifiers)) == len(identifiers)


def test_report_escapes_names(run):
    facts = run.facts
    labels = ["<b>left</b>", *facts["labels"][1:]]
    try:
        run.change(labels=labels)
        assert "<b>left</b>" in " ".join(read(run).text)
    finally:
        run.change(labels=facts["labels"])


def test_a_class_without_samples_shows_no_number(run):
    tested = run.tested
    tested["classes"][0] |= {"f1": None, "recall": None}
    run.write_json("test.json", tested)
    assert "–" in " ".join(read(run).text)


def test_the_confusion_matrix_in_the_page_is_the_saved_one(run):
    confusion = np.load(run.folder / "confusion.npy")
    html = report_html(run)
    for row, label in enumerate(run.labels):
        for column, other in enumerate(run.labels):
            assert f"{label} → {other}: {confusion[row, column]} (" in html


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a run: it has no run\.json"):
        Run.open(tmp_path)


def test_values_of_a_passed_on_run_are_escaped(run, tmp_path):
    folder = tmp_path / "passed_on"
    shutil.copytree(run.folder, folder)
    hostile = '"><script>alert(1)</script><img src="https://example.org/a">'
    facts = dict.fromkeys(("started", "store", "snippets", "store_digest"), hostile)
    split = run.facts["split"] | {"why": hostile, "notes": [hostile], "by": hostile}
    with open(folder / "samples.csv", newline="") as file:
        names = next(csv.reader(file))
    values = {"recording": hostile, "onset": 0, "offset": 1, "actual": hostile, "predicted": "b", "probability": 0.9}
    with open(folder / "samples.csv", "w", newline="") as file:
        csv.writer(file).writerows([names, [values.get(name, 1) for name in names]])
    Run(folder).change(**facts, versions={hostile: hostile}, split=split)
    page = report_html(Run(folder))
    assert "<script" not in page
    assert read(Run(folder)).fetched == []
    assert "alert(1)" in " ".join(read(Run(folder)).text)
    assert """content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">""" in page
