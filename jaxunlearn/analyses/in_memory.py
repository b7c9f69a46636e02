"""Runs an analysis on arrays that are in memory, without a launcher, a folder or a file."""

import contextlib
import dataclasses
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxunlearn import arrays, checks, errors, settings
from jaxunlearn.analyses.base import Analysis, Context, array_input
from jaxunlearn.arrays import ArrayField
from jaxunlearn.records import Evidence
from jaxunlearn.report.cells import Table
from jaxunlearn.report.section import Report, Section
from jaxunlearn.scores.evidence import as_arrays

SWITCHES = ("plan_shadows", "probabilities")  # flags without a value
POSITIONS = (
    "It takes positions in the evidence, from 0, not rows of the data: where row i of the evidence is row rows[i] of "
    "the data, give np.isin(rows, forget)."
)


def run(
    analysis: Analysis,
    evidence: Evidence | Mapping[str, Any],
    *,
    probabilities: bool = False,
    seed: int = 0,
    compat: str = "corrected",
    flag: str = "",
    **choices: Any,
) -> Report:
    """Analyses arrays, as the launcher does with a file of them.

    Args:
      analysis: of ANALYSES.
      evidence: arrays by the names that the launcher reads, or an `Evidence`.
      probabilities: the outputs are probabilities.
      seed: of all random draws.
      compat: corrected, or faithful to published quirks.
      flag: which kind of arrays, by the launcher's flag; empty = the analysis' own.
      **choices: settings of the analysis by name, e.g. fdr=0.1.

    Raises:
      UserError: invalid arrays or settings, or settings that change nothing here.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.analyses import ANALYSES, in_memory
      >>> logits = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32)
      >>> evidence = {"unlearned": logits, "original": logits, "labels": np.array([0, 1])}
      >>> in_memory.run(ANALYSES["audit"], evidence, scores=("confidence",)).title
      'Audit of given logits'
    """
    kind = array_input(analysis, flag)
    if probabilities and flag:
        raise errors.ConfigError(f"probabilities=True is of outputs over classes; there are none in {flag}.")
    user_arrays = {name: np.asarray(value) for name, value in as_arrays(evidence).items()}
    _check_choices(analysis, choices, bool(flag))
    with _words_of_python(analysis.section):
        resolved = _resolved(analysis, seed, compat, choices)
        values = arrays.read(user_arrays, kind.fields, kind.expected, probabilities=probabilities)
        inputs = kind.from_arrays(values, resolved)
        if analysis.is_plan(resolved):
            return _plan(analysis.describe(inputs, resolved))
        context = Context(lambda text: None, lambda done, total, unit, what: None, _computed)
        report = analysis.compose(analysis.analyse(inputs, resolved, context), resolved)
    return report._replace(
        answer=in_python(report.answer),
        summary=tuple((question, in_python(answer)) for question, answer in report.summary),
        notes=tuple(map(in_python, report.notes)),
        sections=tuple(section._replace(text=in_python(section.text)) for section in report.sections),
    )


@contextlib.contextmanager
def _words_of_python(section: str) -> Iterator[None]:
    """Names arguments in messages instead of settings and flags."""
    try:
        yield
    except errors.UserError as error:
        text = str(error)
        if section:
            text = re.sub(rf"(?<![\w.]){section}\.(?=[a-z])", "", text)
        raise type(error)(in_python(text)) from error


def in_python(text: str) -> str:
    """Returns a sentence with arguments instead of flags.

    Example:
      >>> from jaxunlearn.analyses import in_memory
      >>> in_memory.in_python("Give --fdr=0.1 and --probabilities.")
      'Give fdr=0.1 and probabilities=True.'
    """

    def argument(flag: re.Match[str]) -> str:
        return f"{flag[1]}=True" if flag[1] in SWITCHES and not flag[2] else f"{flag[1]}{flag[2]}"

    return re.sub(r"(?<![\w-])--(?:config\.)?(?:[a-z]\w*\.)*([a-z]\w*)(=?)", argument, text)


def _resolved(analysis: Analysis, seed: int, compat: str, choices: Mapping[str, Any]) -> settings.Settings:
    if compat != "corrected" and not analysis.compat:
        raise errors.ConfigError(f"compat={compat!r} changes nothing here: this analysis has one form.")
    requested: dict[str, Any] = {"seed": seed, "compat": {analysis.compat: compat} if analysis.compat else {}}
    if analysis.section:
        requested[analysis.section] = dict(choices)
    resolved = settings.resolve(requested)
    analysis.check(resolved)
    return resolved


def _check_choices(analysis: Analysis, choices: Mapping[str, Any], is_further: bool) -> None:
    """Refuses unknown arguments, and those that would change nothing."""
    section = typing.get_type_hints(settings.Settings).get(analysis.section)
    fields = {} if section is None else {field.name: field for field in dataclasses.fields(section)}
    known = [name for name, field in fields.items() if not field.metadata["of_runs"]]
    for name in choices:
        full_name = f"{analysis.section}.{name}"
        if name not in fields:
            if full_name in settings.RENAMED:
                raise errors.ConfigError(f"{name} is now called {settings.RENAMED[full_name].rpartition('.')[2]}.")
            raise errors.unknown("argument", name, known)
        facts = fields[name].metadata
        if facts["of_runs"]:
            raise errors.ConfigError(f"{name} changes nothing here: it is of run folders ({facts['help']}).")
        protocol = facts["of_protocol"]
        if protocol and choices.get("protocol") != protocol:
            raise errors.ConfigError(f"{name} changes nothing here: give protocol={protocol!r} with it.")
        if facts["of_texts"] and not is_further:
            raise errors.ConfigError(f"{name} changes nothing here: it is of texts ({facts['help']}).")


def _plan(lines: Sequence[tuple[str, str]]) -> Report:
    """Returns what the arrays contain and what more would show, without any verdict."""
    table = Table("", "", ("what", "how much is there, and what it takes"), tuple(lines))
    section = Section("plan", "What is there, and what would help?", "", table)
    return Report("What these arrays can show", "Nothing was judged.", (section,), {}, stem="plan")


def with_forgotten(
    evidence: Evidence | Mapping[str, Any],
    forgotten: Sequence[int] | np.ndarray | None,
    fields: Mapping[str, ArrayField],
) -> Evidence | Mapping[str, Any]:
    """Returns the evidence with the rows that were asked to be forgotten.

    Args:
      evidence: see `run`.
      forgotten: a mask [n] (bools, or 0 and 1), or positions in the evidence from 0; None = as the evidence says.
      fields: of the evidence; those that begin with N say how many rows there are.

    Raises:
      DataError: `forgotten` is given twice, is empty, names rows that do not exist, or numbers that are positions of
        some rows and `ids` of others. ShapeError: a mask of another length.
    """
    if forgotten is None:
        return evidence
    values = as_arrays(evidence)
    if "forgotten" in values:
        raise errors.DataError("`forgotten` is given twice, in the evidence and as an argument. Leave one out.")
    count = _rows(values, fields)
    try:
        rows = checks.rows("`forgotten`", forgotten, count)
    except errors.UserError as error:
        raise type(error)(f"{error} {POSITIONS}") from error
    if not len(rows):
        raise errors.DataError("`forgotten` is empty: name at least one row.")
    ids = np.asarray(values.get("ids", ()))
    are_numbers = len(forgotten) == len(rows) < count  # a mask has a value for each row
    if are_numbers and ids.shape == (count,) and ids.dtype.kind in "iu" and np.isin(rows, ids).all():
        if set(ids[rows].tolist()) != set(rows.tolist()):
            raise errors.DataError(
                "`forgotten` contains numbers that are positions in the evidence, and `ids` of other rows. Give a "
                "mask: np.isin(ids, forgotten) if they are ids, np.isin(np.arange(n), forgotten) if they are positions."
            )
    return {**values, "forgotten": np.isin(np.arange(count), rows)}


def _rows(values: Mapping[str, Any], fields: Mapping[str, ArrayField]) -> int:
    """Returns the number of rows of the evidence.

    Raises:
      DataError: no array has a row each.
    """
    per_row = {name: field for name, field in fields.items() if field.axes.startswith("N")}
    for name, field in sorted(per_row.items(), key=lambda item: len(item[1].axes)):  # labels before logits
        for stored_name in (name, *field.aliases):
            if stored_name in values and np.ndim(values[stored_name]):
                return len(values[stored_name])
    needed = next(name for name, field in fields.items() if field.axes == "N")
    raise errors.DataError(f"the evidence needs `{needed}` [n].")


def _computed(name: str, facts: Any, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Calls `compute`; nothing is cached."""
    return compute()
