"""User-given names stay text, and numbers stay valid JSON, in every format."""

import io
import json
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jaxunlearn import errors, escapes, progress
from jaxunlearn.store import files

HOSTILE = "\x1b[2J\x1b]0;owned\x07mine\u202e\x9b31m\r"


def test_nothing_a_user_names_steers_a_terminal():
    escaped = escapes.visible(HOSTILE)
    assert escaped == r"\x1b[2J\x1b]0;owned\x07mine\u202e\x9b31m\r"
    assert escapes.visible("tab\tand\nline, Ärger, 猫, ↑ ± –") == "tab\tand\nline, Ärger, 猫, ↑ ± –"
    assert escapes.visible("\ud800").encode()  # half a character could not even be written
    out = io.StringIO()
    progress.show(HOSTILE, out)
    reporter = progress.Reporter(out=out)
    reporter.log(HOSTILE)
    reporter.begin(HOSTILE)
    reporter.update(1, 1, "steps", HOSTILE)
    assert "\x1b" not in out.getvalue() and out.getvalue().count("owned") == 4
    assert str(errors.DataError(f"no array {HOSTILE}")) == f"no array {escaped}"


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\n=1", "＝1", "-A1", "-10 % A1", "-∞", "-1_000", "-１"],
)
def test_a_spreadsheet_runs_no_name_as_a_formula(text):
    assert escapes.spreadsheet(text) == f"'{text}"


@pytest.mark.parametrize(
    "text",
    ["-0.5", "+3", "1e-3", "iam_on", "", "a=b", "–", "-10 %", "-33.3%", "-1.5e-3", "-.5", "-1,234", "-2.5 s", "-inf"],
)
def test_numbers_and_plain_names_stay_as_they_are_in_a_spreadsheet(text):
    assert escapes.spreadsheet(text) == text


NUMBER_AND_UNIT = st.builds(
    lambda sign, number, unit: f"{sign}{number}{unit}", st.sampled_from(["-", "+", ""]),
    st.one_of(st.integers(0).map(str), st.floats(0, allow_infinity=False).map(repr)), st.sampled_from(["", " %", "%"]),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(NUMBER_AND_UNIT)
def test_no_number_is_written_as_text(text):
    assert escapes.spreadsheet(text) == text


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text() | st.builds(lambda start, rest: start + rest, st.sampled_from("=+-@\t\r\n"), st.text())
       | st.builds(lambda number, rest: number + rest, NUMBER_AND_UNIT, st.text(max_size=4)))  # fmt: skip
@example("-1e5")
@example("-1+1")
@example("-10 %\n")
def test_no_cell_that_starts_like_a_formula_is_left_unless_it_is_a_number(text):
    cell = escapes.spreadsheet(text)
    assert not cell.startswith(("=", "@", "\t", "\r", "\n"))
    if cell.startswith(("+", "-")):
        number = re.sub(r" ?(%|m?s|min|h|B|[KMGT]iB)\Z", "", cell).replace(",", "")
        assert not math.isnan(float(number))


def test_markdown_shows_names_as_they_are():
    assert escapes.markdown("<b>_x_ a_b $$ [a](b) |*`") == r"\<b>\_x\_ a_b \$\$ [a]\(b) \|\*\`"


def test_json_holds_no_nan_and_no_infinity_and_is_read_back(tmp_path):
    value = {
        "a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": np.float32("nan"), "d": np.array([[np.inf], [2.0]]),
        "e": (np.int64(3), True, None, "x"),
    }  # fmt: skip
    expected = {"a": None, "b": ["inf", "-inf", 1.5], "c": None, "d": [["inf"], [2.0]], "e": [3, True, None, "x"]}
    files.write_json(tmp_path / "x.json", value)
    files.append_json_line(tmp_path / "x.jsonl", value)
    for name in ("x.json", "x.jsonl"):
        assert json.loads((tmp_path / name).read_text(), parse_constant=pytest.fail) == expected
    values = [escapes.number(part) for part in (None, "inf", "-inf", 2)]
    np.testing.assert_array_equal(values, [math.nan, math.inf, -math.inf, 2])


def test_arrays_in_json_are_lists_of_all_their_values():
    values = np.arange(2000)
    for array in (values, jnp.asarray(values)):
        assert escapes.strict_json({"rows": array}) == {"rows": values.tolist()}
    assert escapes.strict_json([np.float32("nan"), jnp.float32("inf")]) == [None, "inf"]
