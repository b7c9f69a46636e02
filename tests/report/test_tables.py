import csv
import io
import math

import numpy as np
import pytest
from findings import bare, finding
from hypothesis import example, given
from hypothesis import strategies as st

from jaxunlearn import errors
from jaxunlearn.report import cells, number_format, tables

TABLE = tables.Table(
    "Scores",
    "Mean ± sd [95 % interval].",
    ("score", "AUC ↑", "n"),
    (("iam_on", finding(), 1234), ("update", bare(math.nan), 7), ("unleak", bare(0.5), 12)),
)


@pytest.mark.parametrize(
    "value, options, text",
    [
        (0.912, {}, "0.912"),
        (0.912, {"bare": True}, ".912"),
        (-0.05, {"bare": True}, "-.050"),
        (0.912, {"percent": True, "digits": 1}, "91.2"),
        (1.0, {"percent": True, "digits": 1}, "100.0"),
        (math.nan, {}, "–"),
        (math.inf, {}, "∞"),
        (-math.inf, {}, "-∞"),
        (0.0, {}, "0.000"),
        (0.00002, {}, "2e-5"),
        (12.345, {}, "12.35"),
        (123.45, {}, "123.5"),
        (12345.6, {}, "12,346"),
        (np.float32(0.5), {}, "0.500"),
    ],
)
def test_a_number_is_printed_with_the_digits_it_deserves(value, options, text):
    assert number_format.number(value, **options) == text


@given(st.floats(1e-12, 1e12))
@example(0.0005)
@example(0.00065)
@example(0.000499)
def test_no_positive_number_is_printed_as_zero_or_further_off_than_rounding_allows(value):
    text = number_format.number(value).replace(",", "")
    printed = float(text)
    assert printed > 0
    if "e" in text:  # one significant digit
        assert value < 0.0005 and abs(printed - value) <= 0.5 * 10.0 ** int(text.split("e")[1]) * (1 + 1e-9)
    else:
        places = len(text.partition(".")[2])
        assert abs(printed - value) <= 0.5 * 10.0**-places + 1e-12 * value


@pytest.mark.parametrize(
    "value, shown", [(0.05, "5 %"), (0.001, "0.1 %"), (1 / 3, "33.3 %"), (1.0, "100 %"), (0, "0 %")]
)
def test_a_rate_is_printed_in_per_cent(value, shown):
    assert number_format.rate(value) == shown


def test_a_finding_is_printed_in_full_and_without_what_it_lacks():
    assert number_format.long(finding()) == "0.912 ± .003 [.905, .919]"
    assert number_format.long(finding(retrained=0.5)) == "0.912 ± .003 [.905, .919]; retrained .500"
    assert number_format.long(finding(std=math.nan)) == "0.912 [.905, .919]"
    assert number_format.long(finding(low=math.nan, high=math.nan)) == "0.912 ± .003"
    assert number_format.long(bare(0.912)) == "0.912"
    assert number_format.long(bare(math.nan)) == "–"
    assert number_format.long(finding(), 1, percent=True) == "91.2 ± 0.3 [90.5, 91.9]"


def test_the_terminal_table_is_aligned_and_complete_where_it_fits():
    assert tables.text(TABLE) == (
        "Scores\n"
        "\n"
        "score                       AUC ↑      n\n"
        "──────  ─────────────────────────  ─────\n"
        "iam_on  0.912 ± .003 [.905, .919]  1,234\n"
        "update      –                          7\n"
        "unleak  0.500                         12\n"
        "\n"
        "Mean ± sd [95 % interval]."
    )


def score_table(scores, metrics, retrained=None):
    titles = ["AUC ↑", "balanced accuracy ↑", "TPR at FPR 1e-2 ↑", "TPR at FPR 1e-3 ↑", "TNR at FNR 1e-2 ↑"] * 2
    rows = [(f"confidence_{i:03d}", *[finding(retrained=retrained)] * metrics) for i in range(scores)]
    return tables.Table("", "", ("score", *titles[:metrics]), tuple(rows))


def test_six_metrics_of_25_scores_fit_120_columns_with_the_interval_of_the_first():
    lines = tables.text(score_table(25, 6)).splitlines()
    assert max(map(len, lines)) <= 120
    assert all(line.count("±") == 6 and line.count("[") == 1 for line in lines[-25:])
    assert len(lines) <= 25 + 4


def test_a_narrow_terminal_loses_the_retrained_value_then_intervals_then_spreads():
    table = score_table(2, 3, retrained=0.5)
    forms = {(line.count("±"), line.count("["), line.count("retrained")): width for width in range(200, 20, -1)
             for line in [tables.text(table, width=width).splitlines()[-1]]}  # fmt: skip
    assert list(forms) == [(3, 3, 3), (3, 1, 1), (3, 1, 0), (3, 0, 0), (0, 0, 0)]


def test_long_titles_are_broken_and_keep_their_arrow():
    head = tables.text(
        score_table(1, 2)._replace(header=("score", "AUC ↑", "balanced accuracy of everything ↑")), width=50
    )
    assert "everything ↑" in head
    assert not any(line.strip() == "↑" for line in head.splitlines())


def test_per_cent_is_said_in_the_title_and_does_not_touch_counts():
    text = tables.text(TABLE, percent=True)
    assert "AUC (%) ↑" in text and "91.2 ± 0.3 [90.5, 91.9]" in text and "50.0" in text
    assert "n (%)" not in text and "1,234" in text


def test_markdown_is_a_pipe_table_with_everything():
    assert tables.markdown(TABLE) == (
        "**Scores**\n\n"
        "| score | AUC ↑ | n |\n"
        "| :-- | --: | --: |\n"
        "| iam_on | 0.912 ± .003 [.905, .919] | 1,234 |\n"
        "| update | – | 7 |\n"
        "| unleak | 0.500 | 12 |\n\n"
        "Mean ± sd [95 % interval].\n"
    )


def test_markdown_escapes_what_would_be_formatting():
    table = tables.Table("", "", ("a|b",), (("<b>&*x* _edge_ in_side `c`\nnext",),))
    line = tables.markdown(table).splitlines()[-1]
    assert line == r"| \<b>\&\*x\* \_edge\_ in_side \`c\` next |"
    assert tables.markdown(table).splitlines()[0] == r"| a\|b |"


def test_latex_escapes_specials_and_marks_the_best():
    table = tables.Table(
        "50 % & more_of #1", "", ("score", "AUC ↑", "loss ↓"),
        (("a_b", finding(), 0.2), ("c$^~\\{}", finding(0.9121), 0.1), ("[d]", bare(math.nan), -0.3)),
    )  # fmt: skip
    assert tables.latex(table, bold=True) == (
        "\\begin{table}\n\\centering\n\\caption{50 \\% \\& more\\_of \\#1.}\n\\begin{tabular}{lrr}\n\\hline\n"
        "score & AUC $\\uparrow$ & loss $\\downarrow$ \\\\\n\\hline\n"
        "a\\_b & \\textbf{0.912 $\\pm$ .003 [.905, .919]} & 0.200 \\\\\n"
        "c\\$\\textasciicircum{}\\textasciitilde{}\\textbackslash{}\\{\\} & "
        "\\textbf{0.912 $\\pm$ .003 [.905, .919]} & 0.100 \\\\\n"
        "{[}d] & -- & \\textbf{$-$0.300} \\\\\n"
        "\\hline\n\\end{tabular}\n\\end{table}\n"
    )
    assert "textbf" not in tables.latex(table)


def test_the_best_of_a_column_without_arrow_is_not_marked():
    table = TABLE._replace(header=("score", "AUC", "n"))
    assert cells.best(table) == set()
    assert cells.best(TABLE) == {(0, 1)}


def test_csv_is_unrounded_and_gives_every_part_of_a_finding_a_column():
    value = 0.9123456789012345
    table = tables.Table("", "", ("score", "AUC ↑", "p"), (('a,"b"', finding(value), 0.1), ("c", "skipped", math.nan)))
    rows = list(csv.reader(io.StringIO(tables.csv(table))))
    assert rows[0] == ["score", "AUC ↑", "AUC ↑ std", "AUC ↑ low", "AUC ↑ high", "AUC ↑ n", "AUC ↑ method", "p"]
    assert rows[1] == ['a,"b"', repr(value), "0.003", "0.905", "0.919", "5000", "DeLong", "0.1"]
    assert rows[2] == ["c", "skipped", "", "", "", "", "", ""]


def test_csv_has_the_retrained_value_where_there_is_one():
    table = tables.Table("", "", ("AUC",), ((finding(retrained=0.5),), (finding(),)))
    rows = list(csv.DictReader(io.StringIO(tables.csv(table))))
    assert [row["AUC retrained"] for row in rows] == ["0.5", ""]


@pytest.mark.parametrize("render", [tables.text, tables.markdown, tables.latex, tables.csv])
def test_every_renderer_takes_numpy_numbers_and_empty_tables(render):
    table = tables.Table("", "", ("name", "count", "value"), (("a", np.int64(1), np.float32(0.25)),))
    assert "0.25" in render(table)
    assert "name" in render(table._replace(rows=()))


@pytest.mark.parametrize("render", [tables.text, tables.markdown, tables.latex, tables.csv])
def test_a_row_of_the_wrong_length_is_named(render):
    with pytest.raises(errors.ShapeError, match=r"row 1 of table 'T' has 1 cell\(s\), but the header has 2 \(a, b\)"):
        render(tables.Table("T", "", ("a", "b"), (("x", 1), ("y",))))
    with pytest.raises(errors.ShapeError, match="no columns"):
        render(tables.Table("T", "", (), ()))


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=True)), min_size=1, max_size=5))
def test_markdown_rows_always_have_as_many_cells_as_titles(rows):
    lines = tables.markdown(tables.Table("", "", ("a", "b"), tuple(rows))).rstrip("\n").split("\n")
    assert len(lines) == len(rows) + 2
    for line in lines:
        unescaped = line.replace("\\\\", "").replace("\\|", "")
        assert unescaped.count("|") == 3


def test_a_baseline_is_never_the_best():
    rows = (("random", 0.9), ("iam_on", 0.7), ("loss", 0.6))
    assert cells.best(tables.Table("", "", ("score", "AUC ↑"), rows, ("random",))) == {(1, 1)}
    assert cells.best(tables.Table("", "", ("score", "AUC ↑"), rows[:1], ("random",))) == set()


def test_csv_and_markdown_hold_names_as_text():
    table = tables.Table("", "", ("=A1", "AUC"), (("=1+1", finding(-0.5)), ("<b>\x1b[0m", "-0.5")))
    lines = tables.csv(table).splitlines()
    assert lines[0].startswith("'=A1,") and lines[1].startswith("'=1+1,-0.5,")
    assert lines[2].startswith(r"<b>\x1b[0m,-0.5")
    assert r"\<b>" in tables.markdown(table) and "\x1b" not in tables.text(table) + tables.latex(table)
