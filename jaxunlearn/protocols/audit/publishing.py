"""Writes what an audit found: findings.json, tables as markdown, LaTeX and CSV, figures as SVG, one HTML page."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxunlearn import store
from jaxunlearn.protocols.audit.presenting import Piece
from jaxunlearn.records import Finding
from jaxunlearn.report import page, tables


def publish(
    run: store.Run,
    title: str,
    answer: str,
    pieces: Iterable[Piece],
    provenance: Mapping[str, str],
    findings: list[Finding],
    settings: Mapping[str, Any],
    stem: str = "report",
) -> str:
    """Writes everything under the run folder and returns where it lies, as text.

    Args:
      run: the run folder.
      title: of the page; `answer`: its first paragraph.
      answer: in words.
      pieces: sections.
      provenance: what was run, for the foot of the page.
      findings: the numbers with their intervals.
      settings: all of them.
      stem: names the files: report/STEM.html ...; findings.json for "report", else report/STEM_findings.json.

    Raises:
      StoreError: cannot be written.
    """
    pieces = list(pieces)
    folder = run.path("report")
    sections = []
    for piece in pieces:
        if piece.table is not None:
            for suffix, render in (("md", tables.markdown), ("tex", tables.latex), ("csv", tables.csv)):
                page.save_text(run.output("report", "tables", f"{piece.name}.{suffix}"), render(piece.table))
        svg = None
        if piece.figure is not None:
            page.save_figure(piece.figure, run.output("report", f"{piece.name}.svg"))
            svg = page.figure_svg(piece.figure)
        sections.append(page.Section(piece.title, piece.text, piece.table, svg))
    page.save_html(run.output("report", f"{stem}.html"), title, answer, sections, provenance)
    parts = [answer, *(f"## {one.title}\n\n{one.text}\n\n{tables.markdown(one.table)}" for one in pieces if one.table)]
    page.save_text(run.output("report", f"{stem}.md"), "\n\n".join(parts) + "\n")
    numbers = run.path("findings.json") if stem == "report" else folder / f"{stem}_findings.json"
    store.files.write_json(numbers, [vars(finding) for finding in findings])
    told = {"answer": answer, "provenance": dict(provenance), "settings": settings}
    store.files.write_json(folder / f"{stem}.json", told)
    return where(run) if stem == "report" else where_of(run, stem)


def where_of(run: store.Run, stem: str) -> str:
    """Where the results of a study are."""
    rows = [
        (f"  report/{stem}.html", f"the whole study on one page; {stem}.md to paste"),
        (f"  report/{stem}_findings.json", "every number with its interval"),
        ("  report/tables/", "markdown, LaTeX, CSV"),
    ]
    return f"files in {run.root}:\n{tables.pairs(rows)}"


def where(run: store.Run) -> str:
    """Where the results of an audit are."""
    kept = "scores.npz" if run.path("scores.npz").exists() else "scores/"
    rows = [
        (f"  {kept}", "membership scores per sample, higher = still looks trained on; verdicts with p-values"),
        ("  findings.json", "every number with its interval"),
        ("  report/report.html", "the whole report on one page; report.md to paste"),
        ("  report/tables/", "markdown, LaTeX, CSV"),
        ("  report/*.svg", "figures"),
    ]
    return f"files in {run.root}:\n{tables.pairs(rows)}"
