import base64
import hashlib
import html
import io
import json
import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from findings import finding
from matplotlib import image

from jaxunlearn import errors
from jaxunlearn.report import page, publish, stylesheet, tables, theme
from jaxunlearn.report.figures import curves, epsilon_figures, figures, verdict_bars
from jaxunlearn.report.section import Report, Section

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
        if data.strip() and not {"style", "title", "script"} & set(self.open[-1:]):
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
def html_text():
    table = tables.Table("T" + NASTY, NASTY, ("score", "AUC ↑"), ((NASTY, finding(retrained=0.5)), ("b", 0.1)))
    long = tables.Table("Samples", "", ("row", "verdict"), tuple((i, "forgotten") for i in range(page.LONG + 1)))
    sections = [
        Section("first", "S" + NASTY, f"first {NASTY}\n\nsecond", table, roc()),
        Section("more", "more", "", long, roc(1)),
        Section("verdicts", "verdicts", figure=verdict_bars.verdicts(["a"], np.array([[1, 2, 3, 4]]))),
    ]
    provenance = {"config": {"seed": 42, "name": NASTY}, "devices": ["cpu", "gpu"], "time": "now", "nothing": ""}
    return page.html(Report("Title " + NASTY, "37 of 500 < all. " + NASTY, tuple(sections), provenance))


def with_table(*rows, header=("name", "value"), **options):
    """A page with one table."""
    section = Section("s", "s", table=tables.Table("T", "", header, rows), **options)
    return page.html(Report("t", "answer", (section,), {}))


def test_the_page_balances_and_its_first_visible_line_is_the_answer(html_text):
    reader = read(html_text)
    assert reader.words[0] == "37 of 500 < all. " + NASTY
    assert reader.words[1] == "Title " + NASTY
    assert reader.tags.count("p") >= 3 and reader.tags.count("svg") == 3 and reader.tags.count("script") == 1


def test_the_page_needs_nothing_from_elsewhere(html_text):
    without_namespaces = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", html_text)
    for forbidden in ("http:", "https:", "src=", "@import", "<link", "<img", "<iframe", "file:"):
        assert forbidden not in without_namespaces, forbidden
    assert re.findall(r"""href="(?!#)|url\((?!#)""", html_text) == []


def test_only_the_script_of_the_page_may_run(html_text):
    reader = read(html_text)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html_text)[1]
    (script,) = re.findall(r"<script>(.*?)</script>", html_text, flags=re.DOTALL)
    checksum = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{checksum}';" in policy and policy.startswith("default-src 'none'; ")
    assert not re.search(r"<[^>]*\son\w+=", html_text.replace(script, ""))  # no handlers in tags
    assert "script" not in [tag for tag in reader.tags if tag != "script"] and reader.tags[-1] == "script"


def test_everything_a_user_names_is_escaped_and_still_readable(html_text):
    words = read(html_text).words
    for text in ("S" + NASTY, "first " + NASTY, NASTY, f"name = {NASTY}"):
        assert text in words
    assert "alert" not in "".join(re.findall(r"<script>.*?</script>", html_text, flags=re.DOTALL))


def test_several_figures_on_a_page_share_no_id_and_refer_to_their_own(html_text):
    reader = read(html_text)
    assert len(reader.ids) == len(set(reader.ids))
    assert reader.links and set(reader.links) <= set(reader.ids)


def test_equal_figures_are_equal_bytes_and_scale_with_their_box():
    svg, equal, other = page.figure_svg(roc()), page.figure_svg(roc()), page.figure_svg(roc(1))
    assert svg == equal != other
    figure = roc()
    assert page.figure_svg(figure) == page.figure_svg(figure) == svg
    head = svg[: svg.index(">")]
    assert "viewBox" in head and "width=" not in head and "height=" not in head
    assert "<metadata" not in svg and "<!DOCTYPE" not in svg


def test_a_finding_of_the_page_shows_interval_and_retrained_value_and_the_best_is_marked(html_text):
    row = html_text[html_text.index("0.912") - 40 :]
    assert "<b>0.912 ± .003</b><small>[.905, .919]</small><small>retrained .500</small>" in row
    assert "<b>0.100" not in html_text


def test_a_section_in_per_cent_says_so():
    table = tables.Table("", "", ("score", "AUC ↑"), (("a", finding()),))
    words = read(page.html(Report("t", "a", (Section("s", "s", table=table, percent=True),), {}))).words
    assert "AUC (%) ↑" in words and "91.2 ± 0.3" in words and "[90.5, 91.9]" in words


def test_a_bare_page_has_only_title_and_answer():
    reader = read(page.html(Report("t", "answer", (), {})))
    assert reader.words == ["answer", "t"]


SUMMARY = (("What was asked", "Two rows. " + NASTY), ("What was found", "Nothing.\n\nLook twice."))


def full_report():
    notes = ("two rows are the same: 'a' & <b>", "score lira is left out")
    section = Section("first", "First section", "Words.", tables.Table("T", "", ("a", "b"), (("x", -0.1),)))
    return Report("Title", "The whole answer.", (section,), {"config": "c"}, SUMMARY, notes=notes)


def test_a_summary_stands_first_instead_of_the_answer_then_notes_and_sections():
    words = read(page.html(full_report())).words
    expected = ["What was asked", "Two rows. " + NASTY, "What was found", "Nothing.", "Look twice.", "Title",
                "Notes", *full_report().notes, "First section"]  # fmt: skip
    assert words[: len(expected)] == expected


def test_notes_follow_the_answer_where_there_is_no_summary():
    words = read(page.html(full_report()._replace(summary=()))).words
    assert words[:5] == ["The whole answer.", "Title", "Notes", *full_report().notes]


def publish_to(report, folder):
    def output(*names):
        return folder.joinpath(*names)

    publish.publish(output, report, {"seed": 1})
    return (folder / "report" / "report.md").read_text(), json.loads((folder / "report" / "report.json").read_text())


def test_markdown_and_json_carry_summary_answer_and_notes(tmp_path):
    markdown, facts = publish_to(full_report(), tmp_path)
    assert facts["summary"] == [{"question": question, "answer": answer} for question, answer in SUMMARY]
    assert facts["answer"] == "The whole answer." and facts["notes"] == list(full_report().notes)
    assert markdown.startswith("**What was asked**\n\nTwo rows. \\<script>")
    assert "The whole answer." not in markdown
    fragments = ["**What was found**\n\nNothing.\n\nLook twice.\n\n",
             "## Notes\n\n- two rows are the same: 'a' \\& \\<b>\n- score lira is left out\n\n",
             "## First section"]  # fmt: skip
    positions = [markdown.index(fragment) for fragment in fragments]
    assert positions == sorted(positions)
    plain, facts = publish_to(Report("t", "Only an answer.", (), {}), tmp_path)
    assert plain == "Only an answer.\n" and facts["summary"] == [] and facts["notes"] == []


def test_the_terminal_prints_the_summary_in_blocks_that_fit():
    report = Report("t", "answer", (), {}, (("What was asked", "word " * 60), ("What was found", "a\n\nb")))
    blocks = publish.first_text(report).split("\n\n")
    assert blocks[0].startswith("What was asked: word word") and blocks[1] == "What was found: a b"
    assert max(map(len, blocks[0].splitlines())) <= 120 and len(blocks[0].splitlines()) == 3
    assert publish.first_text(report._replace(summary=())) == "answer"


def test_a_number_is_sorted_by_its_unrounded_value():
    rows = (
        ("a", 0.91234567),
        ("b", finding(0.5)),
        ("c", math.nan),
        ("d", 1234),
        ("e", -math.inf),
        ("f", 12),
        ("g", "x"),
    )
    attributes = re.findall(r'<td class="number"( data-value="[^"]*")?>', with_table(*rows))
    assert attributes == [f' data-value="{value}"' if value is not None else "" for value in
                    ("0.91234567", "0.5", "", "1234", "-Infinity", None, None)]  # fmt: skip
    assert "data-value" not in with_table(("a", 0.5), ("b", 0)).partition("<script>")[0]  # 0.500 says the same
    assert ' data-value="0.5">' in with_table(("a", 0.5), percent=True)


def test_a_long_table_is_whole_in_a_box_that_print_opens(html_text):
    assert html_text.count('<div class="wide tall" tabindex="0" role="region" aria-label="Samples"><table>') == 1
    assert "<details" not in html_text and html_text.count("<tr>") >= page.LONG + 1
    assert "tall" not in with_table(*(("a", 1),) * page.LONG).partition("</style>")[2].partition("<script>")[0]
    css = html_text[html_text.index("@media print") : html_text.index("</style>")]
    assert "max-height: none" in css and "overflow: visible" in css and "tr[hidden] { display: table-row; }" in css


def test_provenance_stands_at_the_end_one_line_per_entry(html_text):
    words = read(html_text).words
    end = words[words.index("Where the numbers come from") :]
    assert end[1:] == ["config", "seed = 42", f"name = {NASTY}", "devices", "cpu", "gpu", "time", "now", "nothing", "–"]


def test_a_table_that_does_not_fit_is_an_error():
    with pytest.raises(errors.ShapeError, match="row 0"):
        with_table(("x", 1), header=("a",))


def test_saved_files_are_complete_and_leave_nothing_beside_them(tmp_path):
    path = tmp_path / "deep" / "report.html"
    report = Report("t", "ä ± ↑", (), {})
    page.save_html(path, report)
    assert path.read_text(encoding="utf-8") == page.html(report)
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
        lambda: page.save_html(tmp_path / "file" / "a.html", Report("t", "a", (), {})),
        lambda: page.save_figure(roc(), tmp_path / "file" / "a.svg"),
    ):
        with pytest.raises(errors.StoreError, match="cannot write"):
            save()
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(errors.StoreError, match="cannot write"):
        page.save_text(tmp_path / "folder.md", "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.md"]


NAMES = ("$", "$$", "$$$", "a$b^{c$", "Ca$h & <b>_x%", "\x1b[31mred\ud800")
LONG_NAMES = (
    "a class whose name is a whole sentence about everything in the picture",
    "my_module:my_own_method@learning_rate=0.01",
    "finetune+conformal@lambda=5,epochs=20,lr=0.001,weight_decay=0.0005",
    "x" * 70,
    "short",
    "customers_of_2019/branch_7/desk_of_the_second_floor",
)


def figures_with_names(names=NAMES):
    """Draws one figure of every kind that shows names of the user, on demand."""
    rng = np.random.default_rng(0)
    pair = (rng.normal(size=20), np.arange(20) % 2 == 0)
    alphas = {(names[0], "coverage"): {name: [finding(0.9), finding(0.8)] for name in names}}
    return {
        "sheet": lambda: figures.contact_sheet(rng.random((6, 2, 8, 8, 1)), names, names[1]),
        "exposure": lambda: figures.exposure(
            rng.normal(size=(4, 12)).astype(np.float32), rng.random((4, 12)) > 0.5, np.arange(12) % 6, np.arange(12),
            rng.integers(0, 255, (12, 8, 8, 1)), names,
        ),
        "roc": lambda: curves.roc({name: pair for name in names}),
        "histograms": lambda: curves.histograms({name: pair for name in names}),
        "alpha": lambda: curves.against_alpha((0.1, 0.2), alphas),
        "verdicts": lambda: verdict_bars.verdicts(names, np.ones((6, 4), int)),
        "classes": lambda: verdict_bars.classes(names, np.ones((6, 2)), np.ones((6, 2))),
        "calibration": lambda: verdict_bars.calibration(rng.random(30), 0.05, samples=names[1]),
        "delta": lambda: epsilon_figures.against_delta(np.array([0.0, 0.1]), {name: np.ones(2) for name in names}),
        "densities": lambda: epsilon_figures.densities({name: (pair[0], pair[0]) for name in names}, names[3]),
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(figures_with_names()))
def test_names_in_figures_are_text_and_no_formula(kind, tmp_path):
    figure = figures_with_names()[kind]()
    page.save_figure(figure, tmp_path / "a.svg")
    svg = html.unescape((tmp_path / "a.svg").read_text())
    texts = re.findall(r">([^<>]*)</text>", svg)
    assert any("$$" in text for text in texts) and "\x1b" not in svg
    if kind == "roc":  # the numbers of logarithmic axes are still set as powers
        assert "<tspan" in svg
    assert page.figure_svg(figure) == page.figure_svg(figure)


def viewbox(svg):
    return [float(number) for number in re.search(r'viewBox="([^"]*)"', svg)[1].split()]


@pytest.mark.parametrize("kind", list(figures_with_names()))
def test_no_title_or_name_of_a_figure_is_cut(kind):
    figure = figures_with_names(LONG_NAMES)[kind]()
    planned_width = figure.get_size_inches()[0] * 72
    svg = page.figure_svg(figure)
    left, top, width, height = viewbox(svg)
    frame = page._settle(figure) or figure.bbox_inches
    assert (width, height) == pytest.approx((72 * frame.width, 72 * frame.height), abs=0.1)
    # Broken over lines rather than let the picture grow, which a page would scale down until nobody can read it.
    assert width <= 1.15 * planned_width
    assert not ink_outside(figure, frame)


def ink_outside(figure, frame, margin=2):
    """How many pixels are drawn outside the frame (in inches), on a sheet with a wide margin."""
    for legend in figure.legends:  # they would move to the corner of the sheet
        box = legend.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1 and frame.y0 <= box.y0 < box.y1 <= frame.y1
        legend.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, bbox_inches=frame.padded(margin), facecolor="white")
    buffer.seek(0)
    pixels = image.imread(buffer)  # transparent where nothing is
    is_ink = (pixels[..., :3].min(-1) < 0.97) & (pixels[..., 3] > 0.03)
    edge = int(margin * figure.dpi) - 2
    is_ink[edge:-edge, edge:-edge] = False
    return int(is_ink.sum())


def test_ink_outside_a_frame_is_found():
    figure = figures.contact_sheet(np.zeros((1, 1, 8, 8, 1)), ("a",), "x" * 10)
    figure.text(-0.5, 0.5, "outside")
    assert ink_outside(figure, figure.bbox_inches)


def test_a_name_is_broken_between_words_then_at_marks_and_keeps_every_character():
    assert theme.wrap_text("my_module:my_score", 10) == "my_module:\nmy_score"
    assert theme.wrap_text("the quick brown fox", 10) == "the quick\nbrown fox"
    assert theme.wrap_text("a" * 25, 10) == "aaaaaaaaaa\naaaaaaaaaa\naaaaa"
    assert theme.wrap_text("short  enough", 20) == "short  enough"
    for name in LONG_NAMES:
        lines = theme.wrap_text(name, 24).split("\n")
        assert max(map(len, lines)) <= 24 and "".join(lines).replace(" ", "") == name.replace(" ", "")


def test_a_figure_on_a_page_takes_ink_lines_and_paper_from_it_and_keeps_the_colours_of_data(tmp_path):
    figure = curves.roc({f"score {i}": (np.arange(20.0), np.arange(20) % 3 == 0) for i in range(8)})
    page.save_figure(figure, tmp_path / "saved.svg")
    saved, inline = (tmp_path / "saved.svg").read_text(), page.figure_svg(figure)
    for color, variable in ((theme.INK, "--ink"), (theme.QUIET, "--quiet"), (theme.PAPER, "--paper")):
        assert color in saved and f": var({variable})" not in saved
        assert color not in inline and f": var({variable})" in inline
    assert "#000000" not in inline and "<style" not in inline
    assert len(theme.COLORS) == 8
    for color in set(theme.COLORS) - {"#000000"}:
        assert color in inline and color in saved
    bar = page.figure_svg(verdict_bars.verdicts(["a"], np.array([[5, 5, 5, 5]])))
    for color in (theme.RETAINED, theme.FORGOTTEN, theme.SUPPRESSED, theme.UNCLEAR, theme.ON_DARK, theme.ON_LIGHT):
        assert color in bar


def test_a_name_that_looks_like_a_colour_stays_a_name():
    words = read(page.figure_svg(curves.roc({'style="fill: #ffffff"': (np.arange(4.0), np.arange(4) > 1)}))).words
    assert any('style="fill: #ffffff"' in word for word in words)


def luminance(color):
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        channel / 12.92 if channel <= 0.03928 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_colours_of_data_are_readable_on_white_and_in_the_dark():
    dark = re.search(r"dark\) \{.*?--paper: (#\w+)", stylesheet.CSS, flags=re.DOTALL)[1]
    for color in (*theme.COLORS, theme.RETAINED, theme.FORGOTTEN, theme.SUPPRESSED):
        if color != "#000000":  # follows the page
            assert contrast(color, dark) >= 3 and contrast(color, theme.PAPER) >= 2.2, color
    for color in (theme.RETAINED, theme.FORGOTTEN, theme.SUPPRESSED):
        assert contrast(color, theme.ON_DARK) >= 4.5
    assert contrast(theme.UNCLEAR, theme.ON_LIGHT) >= 7


def test_a_report_is_one_line_for_a_prompt_and_a_page_in_a_frame_for_a_notebook():
    table = tables.Table("", "", ("score", "AUC"), tuple((f"score_{number}", 0.5) for number in range(999)))
    sections = (Section("scores", "Scores", table=table),)
    report = Report("Audit", "word " * 999, sections, {}, summary=(("In short", "A."),))
    assert repr(report) == "<Report 'Audit': A.>"
    assert len(repr(report._replace(summary=()))) < 150
    (source,) = re.findall(r'srcdoc="([^"]*)"', report._repr_html_())
    assert html.unescape(source) == page.html(report)
