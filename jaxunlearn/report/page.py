"""One self-contained page, and saving what a report consists of: the only file of this room that writes.

The page needs nothing but itself: no scripts, no fonts, no pictures from elsewhere. Its first visible line is the
answer in words; then come the sections, and at the end where the numbers come from.
"""

import contextlib
import hashlib
import html as html_module
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn import errors, escapes
from jaxunlearn.records import Finding
from jaxunlearn.report import cells, formats, stylesheet
from jaxunlearn.report.section import Section

# Longer tables are folded away: a page is read from the top, and per-sample tables have hundreds of rows.
LONG = 40


def save_figure(figure: Any, path: Path) -> None:
    """Saves a matplotlib figure as SVG (or by the suffix), without dates, so that equal figures are equal files.

    Raises:
      StoreError: cannot be written.
    """
    import matplotlib

    def write(temporary: Path) -> None:
        _settle(figure)
        with matplotlib.rc_context({"svg.hashsalt": "jaxunlearn", "svg.fonttype": "none"}):
            figure.savefig(temporary, metadata={"Date": None} if path.suffix == ".svg" else None)

    _save(path, write)


def save_text(path: Path, text: str) -> None:
    """Saves text as UTF-8 with plain line ends; a reader sees the old file or the new one, never a half.

    Raises:
      StoreError: cannot be written.
    """
    _save(path, lambda temporary: _write(temporary, text))


def save_html(path: Path, title: str, answer: str, sections: Sequence[Section], provenance: Mapping[str, Any]) -> None:
    """Saves the page that `html` builds.

    Raises:
      StoreError: cannot be written. ShapeError: a table's row does not fit its header.
    """
    save_text(path, html(title, answer, sections, provenance))


def figure_svg(figure: Any) -> str:
    """A matplotlib figure as SVG to be put into a page.

    All ids begin with a hash of the picture: the same figure gives the same bytes, different figures on one page do
    not share ids (a browser would take the clip paths of the first for all).
    """
    import matplotlib

    _settle(figure)
    out = io.StringIO()
    # Type is drawn as type, in the reader's own font: small, searchable, and readable aloud.
    with matplotlib.rc_context({"svg.hashsalt": "jaxunlearn", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = out.getvalue()
    drawn = drawn[drawn.index("<svg") :].strip()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    mark = f"f{hashlib.sha256(drawn.encode()).hexdigest()[:10]}-"
    drawn = re.sub(r"<[^>]*>", lambda tag: re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{mark}", tag[0]), drawn)
    # Without width and height the picture takes the width of its box; the viewBox keeps its proportions.
    head, _, body = drawn.partition(">")
    head = re.sub(r'\s(?:width|height|version)="[^"]*"', "", head)
    return f'{head} role="img">{body}'


def html(title: str, answer: str, sections: Sequence[Section], provenance: Mapping[str, Any]) -> str:
    """A self-contained page: the answer, the sections, the provenance.

    Args:
      title: name of the page, in the browser's tab and small under the answer.
      answer: the first visible line (see `words.answer`).
      sections: in the order in which they are read.
      provenance: what -> value (config, seeds, versions, device, fingerprints, time), at the end; values that are
        mappings or sequences are printed one entry per line.

    Raises:
      ShapeError: a table's row does not fit its header.
    """
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_escape(title)}</title>",
        f"<style>{stylesheet.CSS}</style>",
        "</head>",
        "<body>",
        "<main>",
        f'<p class="answer">{_escape(answer)}</p>',
        f"<h1>{_escape(title)}</h1>",
        *[_section(section) for section in sections],
        _provenance(provenance) if provenance else "",
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _section(section: Section) -> str:
    paragraphs = [f"<p>{_escape(part)}</p>" for part in re.split(r"\n\s*\n", section.text) if part.strip()]
    table = _table(section.table, section.percent) if section.table is not None else ""
    drawn = "" if section.figure is None else figure_svg(section.figure)
    figure = f"<figure>{_named(drawn, section.title)}</figure>" if drawn else ""
    parts = ["<section>", f"<h2>{_escape(section.title)}</h2>", *paragraphs, table, figure, "</section>"]
    return "\n".join(part for part in parts if part)


def _named(drawn: str, title: str) -> str:
    return drawn.replace('role="img">', f'role="img" aria-label="{_escape(title)}">', 1)


def _table(table: cells.Table, percent: bool) -> str:
    cells.check(table)
    numeric = [cells.is_numeric(table, column) for column in range(len(table.header))]
    marked = cells.best(table, percent=percent)
    side = [' class="number"' if right else "" for right in numeric]
    head = "".join(
        f"<th{place}>{_escape(title)}</th>" for title, place in zip(cells.titles(table, percent), side, strict=True)
    )
    rows = []
    for row, held in enumerate(table.rows):
        line = []
        for column, cell in enumerate(held):
            shown = _cell(cell, percent, (row, column) in marked)
            name = "th" if column == 0 else "td"
            scope = ' scope="row"' if column == 0 else ""
            line.append(f"<{name}{scope}{side[column]}>{shown}</{name}>")
        rows.append(f"<tr>{''.join(line)}</tr>")
    body = "\n".join(rows)
    drawn = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    title = f"<b>{_escape(table.title)}.</b> " if table.title else ""
    # The caption stands above the box: inside, it would scroll away with a wide table.
    above = f'<p class="caption">{title}{_escape(table.caption)}</p>' if title or table.caption else ""
    drawn = f'{above}<div class="wide" tabindex="0">{drawn}</div>'
    if len(rows) <= LONG:
        return drawn
    folded = f"{_escape(table.title) or 'Table'}: {formats.count(len(rows))} rows"
    return f"<details><summary>{folded}</summary>{drawn}</details>"


def _cell(cell: cells.Cell, percent: bool, is_best: bool) -> str:
    """A cell; a finding stands on two lines, the estimate above what qualifies it, so that columns stay narrow."""
    if not isinstance(cell, Finding):
        shown, beside = _escape(cells.string(cell, percent=percent)), ""
    else:
        parts = formats.parts(cell, cells.places(None, percent), percent=percent)
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
        f'<div class="wide" tabindex="0"><table class="provenance"><tbody>\n{body}\n</tbody></table></div>\n</section>'
    )


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name} = {part}" for name, part in value.items()] or [formats.MISSING]
    if isinstance(value, list | tuple):
        return [str(part) for part in value] or [formats.MISSING]
    return str(value).splitlines() or [formats.MISSING]


def _settle(figure: Any) -> None:
    """Lays a figure out once and for all.

    Constrained layout starts from where the last drawing left the axes: every further saving would move them by a
    hair, and equal figures would be different files.
    """
    if figure.get_layout_engine() is not None:
        _as_plain_text(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


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
