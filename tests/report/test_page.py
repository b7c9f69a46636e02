import html
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from findings import finding

from jaxunlearn import errors
from jaxunlearn.report import bars, curves, figures, page, populations, tables
from jaxunlearn.report.section import Section

NASTY = "<script>alert('x')</script> & \"a_b\" 50 % $x$"
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Collects tags, ids and visible text; fails on tags that do not balance."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.words = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += re.findall(r'(?:href="#|url\(#)([^")]+)', self.get_starttag_text())
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and not {"style", "title"} & set(self.open[-1:]):
            self.words.append(data.strip())


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def roc(seed=0):
    generator = np.random.default_rng(seed)
    return curves.roc({NASTY if seed else "iam_on": (generator.normal(size=60), np.arange(60) % 2 == 0)})


@pytest.fixture(scope="module")
def built():
    table = tables.Table("T" + NASTY, NASTY, ("score", "AUC ↑"), ((NASTY, finding(retrained=0.5)), ("b", 0.1)))
    long = tables.Table("Samples", "", ("row", "verdict"), tuple((i, "forgotten") for i in range(page.LONG + 1)))
    sections = [
        Section("first", "S" + NASTY, f"first {NASTY}\n\nsecond", table, roc()),
        Section("more", "more", "", long, roc(1)),
        Section("verdicts", "verdicts", figure=bars.verdicts(["a"], np.array([[1, 2, 3, 4]]))),
    ]
    provenance = {"config": {"seed": 42, "name": NASTY}, "devices": ["cpu", "gpu"], "time": "now", "nothing": ""}
    return page.html("Title " + NASTY, "37 of 500 < all. " + NASTY, sections, provenance)


def test_the_page_balances_and_its_first_visible_line_is_the_answer(built):
    reader = read(built)
    assert reader.words[0] == "37 of 500 < all. " + NASTY
    assert reader.words[1] == "Title " + NASTY
    assert reader.tags.count("p") >= 3 and reader.tags.count("svg") == 3 and reader.tags.count("details") == 1


def test_the_page_needs_nothing_from_elsewhere(built):
    without_namespaces = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", built)
    for forbidden in ("http", "src=", "<script", "@import", "<link", "<img", "file:"):
        assert forbidden not in without_namespaces, forbidden
    assert re.findall(r'href="(?!#)', built) == []


def test_everything_a_user_names_is_escaped_and_still_readable(built):
    words = read(built).words
    for said in ("S" + NASTY, "first " + NASTY, NASTY, f"name = {NASTY}"):
        assert said in words
    assert "script" not in read(built).tags


def test_several_figures_on_a_page_share_no_id_and_refer_to_their_own(built):
    reader = read(built)
    assert len(reader.ids) == len(set(reader.ids))
    assert reader.links and set(reader.links) <= set(reader.ids)


def test_equal_figures_are_equal_bytes_and_scale_with_their_box():
    once, again, other = page.figure_svg(roc()), page.figure_svg(roc()), page.figure_svg(roc(1))
    assert once == again != other
    figure = roc()
    assert page.figure_svg(figure) == page.figure_svg(figure) == once
    head = once[: once.index(">")]
    assert "viewBox" in head and "width=" not in head and "height=" not in head
    assert "<metadata" not in once and "<!DOCTYPE" not in once


def test_a_finding_of_the_page_shows_interval_and_retrained_value_and_the_best_is_marked(built):
    row = built[built.index("0.912") - 40 :]
    assert "<b>0.912 ± .003</b><small>[.905, .919]</small><small>retrained .500</small>" in row
    assert "<b>0.100" not in built


def test_a_section_in_per_cent_says_so():
    table = tables.Table("", "", ("score", "AUC ↑"), (("a", finding()),))
    words = read(page.html("t", "a", [Section("s", "s", table=table, percent=True)], {})).words
    assert "AUC (%) ↑" in words and "91.2 ± 0.3" in words and "[90.5, 91.9]" in words


def test_a_bare_page_has_only_title_and_answer():
    reader = read(page.html("t", "answer", [], {}))
    assert reader.words == ["answer", "t"]


def test_provenance_stands_at_the_end_one_line_per_entry(built):
    words = read(built).words
    end = words[words.index("Where the numbers come from") :]
    assert end[1:] == ["config", "seed = 42", f"name = {NASTY}", "devices", "cpu", "gpu", "time", "now", "nothing", "–"]


def test_a_table_that_does_not_fit_is_an_error():
    with pytest.raises(errors.ShapeError, match="row 0"):
        page.html("t", "a", [Section("s", "s", table=tables.Table("T", "", ("a",), (("x", 1),)))], {})


def test_saved_files_are_complete_and_leave_nothing_beside_them(tmp_path):
    path = tmp_path / "deep" / "report.html"
    page.save_html(path, "t", "ä ± ↑", [], {})
    assert path.read_text(encoding="utf-8") == page.html("t", "ä ± ↑", [], {})
    page.save_text(path, "new\n")
    assert path.read_bytes() == b"new\n"
    for name in ("one.svg", "two.svg", "three.png"):
        page.save_figure(roc(), tmp_path / "deep" / name)
    assert sorted(os.listdir(tmp_path / "deep")) == ["one.svg", "report.html", "three.png", "two.svg"]
    assert (tmp_path / "deep" / "one.svg").read_bytes() == (tmp_path / "deep" / "two.svg").read_bytes()


def test_a_path_that_cannot_be_written_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for save in (
        lambda: page.save_text(tmp_path / "file" / "a.md", "x"),
        lambda: page.save_html(tmp_path / "file" / "a.html", "t", "a", [], {}),
        lambda: page.save_figure(roc(), tmp_path / "file" / "a.svg"),
    ):
        with pytest.raises(errors.StoreError, match="cannot write"):
            save()
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(errors.StoreError, match="cannot write"):
        page.save_text(tmp_path / "folder.md", "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.md"]


NAMES = ("$", "$$", "$$$", "a$b^{c$", "Ca$h & <b>_x%", "\x1b[31mred\ud800")


def drawn_with_names():
    """Draws one figure of every kind that shows names of the user, on demand."""
    rng = np.random.default_rng(0)
    pair = (rng.normal(size=20), np.arange(20) % 2 == 0)
    alphas = {("forgotten", "coverage"): {name: [finding(0.9), finding(0.8)] for name in NAMES}}
    return {
        "sheet": lambda: figures.contact_sheet(rng.random((6, 2, 8, 8, 1)), NAMES, NAMES[1]),
        "exposure": lambda: figures.exposure(
            rng.normal(size=(4, 12)).astype(np.float32), rng.random((4, 12)) > 0.5, np.arange(12) % 6, np.arange(12),
            rng.integers(0, 255, (12, 8, 8, 1)), NAMES,
        ),
        "roc": lambda: curves.roc({name: pair for name in NAMES}),
        "histograms": lambda: curves.histograms({name: pair for name in NAMES}),
        "alpha": lambda: curves.against_alpha((0.1, 0.2), alphas),
        "verdicts": lambda: bars.verdicts(NAMES, np.ones((6, 4), int)),
        "classes": lambda: bars.classes(NAMES, np.ones((6, 2)), np.ones((6, 2))),
        "calibration": lambda: bars.calibration(rng.random(30), 0.05, samples=NAMES[1]),
        "delta": lambda: populations.against_delta(np.array([0.0, 0.1]), {name: np.ones(2) for name in NAMES}),
        "densities": lambda: populations.densities({name: (pair[0], pair[0]) for name in NAMES}, NAMES[3]),
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(drawn_with_names()))
def test_names_in_figures_are_text_and_no_formula(kind, tmp_path):
    figure = drawn_with_names()[kind]()
    page.save_figure(figure, tmp_path / "a.svg")
    drawn = html.unescape((tmp_path / "a.svg").read_text())
    shown = re.findall(r">([^<>]*)</text>", drawn)
    assert any("$$" in text for text in shown) and "\x1b" not in drawn
    if kind == "roc":  # the numbers of logarithmic axes are still set as powers
        assert "<tspan" in drawn
    assert page.figure_svg(figure) == page.figure_svg(figure)
