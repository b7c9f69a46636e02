"""One self-contained page, and saving what a report consists of: the only file of this room that writes.

The page needs nothing but itself: no scripts, no fonts, no pictures from elsewhere, and its policy forbids them. It
begins with the answer in words; then come the notes, the sections, and at the end where the numbers come from.
"""

import base64
import contextlib
import hashlib
import html as html_module
import io
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxunlearn import errors, escapes
from jaxunlearn.records import Finding
from jaxunlearn.report import cells, number_format, script, stylesheet, theme
from jaxunlearn.report.section import Report, Section

# Longer tables scroll in a box: a page is read from the top, and per-sample tables have hundreds of rows.
LONG = 40
# Colours of figures that follow the page; matplotlib names what has no colour of its own black.
_PAGE_COLORS = {
    theme.INK: "var(--ink)", "#000000": "var(--ink)", theme.QUIET: "var(--quiet)", theme.PAPER: "var(--paper)",
}  # fmt: skip


def save_figure(figure: Any, path: Path) -> None:
    """Saves a matplotlib figure as SVG (or by the suffix), without dates, so that equal figures are equal files.

    Raises:
      StoreError: cannot be written.
    """
    import matplotlib

    def write(temporary: Path) -> None:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        frame = _settle(figure)
        with matplotlib.rc_context({"svg.hashsalt": "jaxunlearn", "svg.fonttype": "none"}):
            figure.savefig(temporary, metadata=metadata, bbox_inches=frame)

    _save(path, write)


def save_text(path: Path, text: str) -> None:
    """Saves text as UTF-8 with plain line ends; a reader sees the old file or the new one, never a half.

    Raises:
      StoreError: cannot be written.
    """
    _save(path, lambda temporary: _write(temporary, text))


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Saves arrays as an .npz.

    Raises:
      StoreError: cannot be written.
    """

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    _save(path, write)


def save_html(path: Path, report: Report) -> None:
    """Saves the page that `html` builds.

    Raises:
      StoreError: cannot be written. ShapeError: a table's row does not fit its header.
    """
    save_text(path, html(report))


def figure_svg(figure: Any) -> str:
    """A matplotlib figure as SVG to be put into a page, whose ink, soft lines and paper it takes.

    All ids begin with a hash of the picture: the same figure gives the same bytes, different figures on one page do
    not share ids (a browser would take the clip paths of the first for all).
    """
    import matplotlib

    frame = _settle(figure)
    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    # Type is drawn as type, in the reader's own font: small, searchable, and readable aloud.
    with matplotlib.rc_context({"svg.hashsalt": "jaxunlearn", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata=nothing, bbox_inches=frame)
    drawn = out.getvalue()
    drawn = drawn[drawn.index("<svg") :].strip()
    # Its rule for all elements would hold for the whole page, whose style sheet has it for figures.
    drawn = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r">\s+<", "><", drawn)
    mark = f"f{hashlib.sha256(drawn.encode()).hexdigest()[:10]}-"
    drawn = re.sub(r"<[^>]*>", lambda tag: _for_page(tag[0], mark), drawn)
    # Without width and height the picture takes the width of its box; the viewBox keeps its proportions.
    head, _, body = drawn.partition(">")
    head = re.sub(r'\s(?:width|height|version)="[^"]*"', "", head)
    return f'{head} role="img">{body}'


def _for_page(tag: str, mark: str) -> str:
    """One tag of a figure with ids that begin with `mark`, colours of the page, and paths to a hundredth of a point."""
    tag = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{mark}", tag)
    tag = re.sub(r'\sd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+|\s+(?=[A-Z\"])", r"\1", path[0]), tag)
    return re.sub(
        r'\sstyle="[^"]*"',
        lambda colors: re.sub(r"#[0-9a-f]{6}\b", lambda color: _PAGE_COLORS.get(color[0], color[0]), colors[0]),
        tag,
    )


def html(report: Report) -> str:
    """Builds a self-contained page: the first screen, the notes, the sections, the provenance.

    The first screen is the summary, or the answer where there is none. Entries of the provenance that are mappings or
    sequences are printed one part per line.

    Raises:
      ShapeError: a table's row does not fit its header.
    """
    checksum = base64.b64encode(hashlib.sha256(script.TABLES.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{checksum}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<title>{_escape(report.title)}</title>",
        f"<style>{stylesheet.CSS}</style>",
        "</head>",
        "<body>",
        "<main>",
        _first_screen(report),
        _notes(report.notes) if report.notes else "",
        *[_section(section) for section in report.sections],
        _provenance(report.provenance) if report.provenance else "",
        "</main>",
        f"<script>{script.TABLES}</script>",
        "</body>",
        "</html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _first_screen(report: Report) -> str:
    title = f"<h1>{_escape(report.title)}</h1>"
    if not report.summary:
        return f'<p class="answer">{_escape(report.answer)}</p>\n{title}'
    cards = "\n".join(
        f"<div><dt>{_escape(question)}</dt>{''.join(f'<dd>{part}</dd>' for part in _paragraphs(answer))}</div>"
        for question, answer in report.summary
    )
    return f'<dl class="summary">\n{cards}\n</dl>\n{title}'


def _notes(notes: Sequence[str]) -> str:
    lines = "\n".join(f"<li>{_escape(note)}</li>" for note in notes)
    return f'<section class="notes">\n<h2>Notes</h2>\n<ul>\n{lines}\n</ul>\n</section>'


def _paragraphs(text: str) -> list[str]:
    return [_escape(part) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _section(section: Section) -> str:
    paragraphs = [f"<p>{part}</p>" for part in _paragraphs(section.text)]
    table = _table(section.table, section.percent) if section.table is not None else ""
    drawn = "" if section.figure is None else figure_svg(section.figure)
    figure = f"<figure>{_named(drawn, section.title)}</figure>" if drawn else ""
    parts = ["<section>", f"<h2>{_escape(section.title)}</h2>", *paragraphs, table, figure, "</section>"]
    return "\n".join(part for part in parts if part)


def _named(drawn: str, title: str) -> str:
    return drawn.replace('role="img">', f'role="img" aria-label="{_escape(title)}">', 1)


def _table(table: cells.Table, percent: bool) -> str:
    cells.check(table)
    marked = cells.best(table, percent=percent)
    side = [_side(table, column) for column in range(len(table.header))]
    head = "".join(
        f'<th scope="col"{place}>{_escape(title)}</th>'
        for title, place in zip(cells.titles(table, percent), side, strict=True)
    )
    rows = []
    for row, held in enumerate(table.rows):
        line = []
        for column, cell in enumerate(held):
            shown = _cell(cell, percent, (row, column) in marked)
            name = "th" if column == 0 else "td"
            scope = ' scope="row"' if column == 0 else ""
            line.append(f"<{name}{scope}{side[column]}{_exact(cell, percent)}>{shown}</{name}>")
        rows.append(f"<tr>{''.join(line)}</tr>")
    body = "\n".join(rows)
    drawn = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    title = f"<b>{_escape(table.title)}.</b> " if table.title else ""
    # The caption stands above the box: inside, it would scroll away with a wide table.
    above = f'<p class="caption">{title}{_escape(table.caption)}</p>' if title or table.caption else ""
    tall = " tall" if len(rows) > LONG else ""
    label = _escape(table.title or "Table")
    return f'{above}<div class="wide{tall}" tabindex="0" role="region" aria-label="{label}">{drawn}</div>'


def _side(table: cells.Table, column: int) -> str:
    """The class of a column's cells: numbers stand right, a few words stay in one line, sentences get room."""
    if cells.is_numeric(table, column):
        return ' class="number"'
    longest = max((len(str(row[column])) for row in table.rows), default=0)
    return ' class="long"' if longest > 40 else ' class="short"' if column and 4 < longest <= 24 else ""


def _exact(cell: cells.Cell, percent: bool) -> str:
    """The attribute that sorts a number by its value (9 digits); nothing where the text says the same."""
    if isinstance(cell, str | bool):
        return ""
    value, shown = cells.estimate(cell), cells.string(cell, percent=percent)
    if math.isnan(value):
        return ' data-value=""'
    exact = f"{value:.9g}".replace("inf", "Infinity")
    return "" if shown in (exact, f"{value:.3f}") and float(shown) == value else f' data-value="{exact}"'


def _cell(cell: cells.Cell, percent: bool, is_best: bool) -> str:
    """A cell; a finding stands on two lines, the estimate above what qualifies it, so that columns stay narrow."""
    if not isinstance(cell, Finding):
        shown, beside = _escape(cells.string(cell, percent=percent)), ""
    else:
        parts = number_format.parts(cell, cells.places(None, percent), percent=percent)
        shown = _escape(" ".join(part for part in parts[:2] if part))
        beside = "".join(f"<small>{_escape(part)}</small>" for part in parts[2:] if part)
    return f"<b>{shown}</b>{beside}" if is_best else f"{shown}{beside}"


def _provenance(provenance: Mapping[str, Any]) -> str:
    rows = [
        f'<tr><th scope="row">{_escape(str(name))}</th><td>{"<br>".join(map(_escape, _lines(value)))}</td></tr>'
        for name, value in provenance.items()
    ]
    body = "\n".join(rows)
    return (
        "<section>\n<h2>Where the numbers come from</h2>\n"
        '<div class="wide" tabindex="0" role="region" aria-label="Provenance">'
        f'<table class="provenance"><tbody>\n{body}\n</tbody></table></div>\n</section>'
    )


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name} = {part}" for name, part in value.items()] or [number_format.MISSING]
    if isinstance(value, list | tuple):
        return [str(part) for part in value] or [number_format.MISSING]
    return str(value).splitlines() or [number_format.MISSING]


def _settle(figure: Any) -> Any:
    """Lays a figure out once and for all; returns the part to save where names reach beyond its edges, else None.

    Constrained layout starts from where the last drawing left the axes: every further saving would move them by a
    hair, and equal figures would be different files.
    """
    from matplotlib.transforms import Bbox

    if figure.get_layout_engine() is not None:
        _as_plain_text(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    whole, drawn = figure.bbox_inches, figure.get_tightbbox()
    beyond = max(whole.x0 - drawn.x0, whole.y0 - drawn.y0, drawn.x1 - whole.x1, drawn.y1 - whole.y1)
    return Bbox.union([whole, drawn.padded(0.04)]) if beyond > 0.001 else None


def _as_plain_text(figure: Any) -> None:
    """Tells matplotlib that what we and the user call things is text: a name with dollars in it is no formula.

    The numbers of a logarithmic axis are formulas, matplotlib's own, and stay.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FixedLocator, LogFormatter

    numbers = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = axis.get_ticklabels(which="both")
        if isinstance(axis.get_major_formatter(), LogFormatter):
            numbers |= {id(label) for label in labels}
        elif isinstance(axis.get_major_locator(), FixedLocator):
            names = [label.get_text() for label in axis.get_ticklabels()]
            axis.set_ticklabels([escapes.visible(name) for name in names])
    for text in figure.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)
            text.set_text(escapes.visible(text.get_text()))


def _escape(text: str) -> str:
    return html_module.escape(escapes.visible(str(text)), quote=True)


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _save(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary file beside `path`, then renames it: no half-written file gets the name."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise errors.StoreError(
            f"cannot write {path} ({error.strerror or error}). "
            "Choose a folder that can be written to, on a disk with room left."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
