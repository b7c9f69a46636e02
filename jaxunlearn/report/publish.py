"""Writes a report: one HTML page, markdown, tables as markdown, LaTeX and CSV, figures as SVG, findings as JSON."""

import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxunlearn import escapes
from jaxunlearn.report import page, tables
from jaxunlearn.report.section import Report, Section

TEXT_WIDTH = 120  # characters per line of sentences


def publish(output: Callable[..., Path], report: Report, settings: Mapping[str, Any]) -> None:
    """Writes all files of a report into a run folder.

    report/STEM.html, .md and .json (summary, answer, notes, provenance, settings); report/tables/SECTION.md, .tex and
    .csv; report/SECTION.svg; findings.json for the stem "report", else report/STEM_findings.json.

    Args:
      output: path components within the run folder -> the path, registered as an output.
      report: what to write.
      settings: all settings, for STEM.json.

    Raises:
      StoreError: cannot be written.
    """
    for section in report.sections:
        if section.table is not None:
            for suffix, render in (("md", tables.markdown), ("tex", tables.latex), ("csv", tables.csv)):
                page.save_text(output("report", "tables", f"{section.name}.{suffix}"), render(section.table))
        if section.figure is not None:
            page.save_figure(section.figure, output("report", f"{section.name}.svg"))
    page.save_html(output("report", f"{report.stem}.html"), report)
    page.save_text(output("report", f"{report.stem}.md"), _markdown(report))
    path_parts = ("findings.json",) if report.stem == "report" else ("report", f"{report.stem}_findings.json")
    _save_json(output(*path_parts), _findings(report))
    facts = {
        "summary": [{"question": question, "answer": answer} for question, answer in report.summary],
        "answer": report.answer,
        "notes": list(report.notes),
        "provenance": dict(report.provenance),
        "settings": settings,
    }
    _save_json(output("report", f"{report.stem}.json"), facts)


def save(folder: Path, report: Report) -> None:
    """Writes a report into any folder, including its arrays, lists and records.

    Raises:
      StoreError: cannot be written.
    """
    publish(lambda *names: folder.joinpath(*names), report, {})
    for name, table in report.listed.items():
        page.save_text(folder / name, tables.csv(table))
    for name, arrays in report.arrays.items():
        page.save_arrays(folder / name, arrays)
    for name, record in report.records.items():
        _save_json(folder / name, record)


def text(report: Report) -> str:
    """Returns a report as text for the terminal: the first screen, the tables with their sentences, the notes.

    Example:
      >>> from jaxunlearn.report import Report, Section, Table, publish
      >>> table = Table("", "", ("score", "AUC ↑"), (("iam_on", 0.91),))
      >>> sections = (Section("scores", "Scores", table=table),)
      >>> report = Report("Audit", "37 of 500 samples are not forgotten.", sections, {})
      >>> print(publish.text(report))
      37 of 500 samples are not forgotten.
      <BLANKLINE>
      Scores
      <BLANKLINE>
      score   AUC ↑
      ──────  ─────
      iam_on  0.910
    """
    table_texts = "\n\n\n".join(
        section_text(section, report.width)
        for section in report.sections
        if section.table is not None and section.printed
    )
    notes = "".join(f"\nnote: {note}" for note in report.notes)
    return f"{first_text(report)}\n\n{table_texts}{notes}"


def first_text(report: Report) -> str:
    """Returns the first screen for the terminal: the questions and answers of the summary, else the answer alone."""
    if not report.summary:
        return report.answer
    return "\n\n".join(
        textwrap.fill(f"{question}{'' if question.endswith('?') else ':'} {' '.join(answer.split())}", TEXT_WIDTH)
        for question, answer in report.summary
    )


def section_text(section: Section, width: int) -> str:
    """Returns a section for the terminal: its heading (if the table has no title), its table and its sentences."""
    assert section.table is not None
    heading = "" if section.table.title else f"{section.title}\n\n"
    table_text = tables.text(section.table, percent=section.percent, width=width)
    return f"{heading}{table_text}\n\n{textwrap.fill(section.text, min(width, TEXT_WIDTH))}".rstrip()


def _markdown(report: Report) -> str:
    lines = [f"**{escapes.markdown(question)}**\n\n{escapes.markdown(answer)}" for question, answer in report.summary]
    lines = lines or [escapes.markdown(report.answer)]
    if report.notes:
        lines.append(
            "## Notes\n\n" + "\n".join(f"- {escapes.markdown(' '.join(note.split()))}" for note in report.notes)
        )
    for section in report.sections:
        if section.table is not None:
            lines.append(f"## {escapes.markdown(section.title)}\n\n{escapes.markdown(section.text)}")
            lines.append(tables.markdown(section.table))
    return "\n\n".join(lines) + "\n"


def _findings(report: Report) -> list[dict[str, Any]]:
    """Returns every finding with the name of its section ("" = none); two sections may show the same score."""
    pairs = [("", finding) for finding in report.more_findings]
    pairs += [(section.name, finding) for section in report.sections for finding in section.findings]
    return [{**finding.to_dict(), "section": name} for name, finding in pairs]


def _save_json(path: Path, value: Any) -> None:
    page.save_text(path, json.dumps(escapes.strict_json(value), indent=1, default=str) + "\n")


def list_files(root: Path, report: Report, first_files: list[tuple[str, str]]) -> str:
    """Returns the list of result files as text: `first_files` (path, content), then the files of the report."""
    findings = "findings.json" if report.stem == "report" else f"report/{report.stem}_findings.json"
    rows = [
        *first_files,
        (findings, "every number with its interval"),
        (f"report/{report.stem}.html", f"the whole report on one page; {report.stem}.md as Markdown"),
        ("report/tables/", "tables as Markdown, LaTeX and CSV"),
        *([("report/*.svg", "figures")] if any(section.figure is not None for section in report.sections) else []),
    ]
    return f"files in {root}:\n{tables.pairs([(f'  {path}', content) for path, content in rows])}"
