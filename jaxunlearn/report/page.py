"""The self-contained HTML page, and all file writing of this room.

The page loads no external scripts, fonts or pictures, and its content security policy forbids them. It begins with the
answer in words, followed by the notes, the sections, and the provenance of the numbers.
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

# Longer tables scroll in a box: per-sample tables have hundreds of rows.
LONG = 40
FRAME_HEIGHT = 700  # pixels of the page inside another one
# Colours of figures that follow the page; black is matplotlib's default.
_PAGE_COLORS = {
    theme.INK: "var(--ink)", "#000000": "var(--ink)", theme.QUIET: "var(--quiet)", theme.PAPER: "var(--paper)",
}  # fmt: skip


def save_figure(figure: Any, path: Path) -> None:
    """Saves a matplotlib figure as SVG (or by the suffix), without dates: equal figures give equal files.

    Raises:
      StoreError: the file cannot be written.
    """
    import matplotlib

    def write(temporary: Path) -> None:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        frame = _settle(figure)
        with matplotlib.rc_context({"svg.hashsalt": "jaxunlearn", "svg.fonttype": "none"}):
            figure.savefig(temporary, metadata=metadata, bbox_inches=frame)

    _save(path, write)


def save_text(path: Path, text: str) -> None:
    """Saves text as UTF-8 with Unix line ends, atomically.

    Raises:
      StoreError: the file cannot be written.
    """
    _save(path, lambda temporary: _write(temporary, text))


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Saves arrays as an .npz.

    Raises:
      StoreError: the file cannot be written.
    """

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    _save(path, write)


def save_html(path: Path, report: Report) -> None:
    """Saves the page that `html` builds.

    Raises:
      StoreError: the file cannot be written. ShapeError: a table's row does not fit its header.
    """
    save_text(path, html(report))


def figure_svg(figure: Any) -> str:
    """Returns a matplotlib figure as SVG for a page, with the page's ink, soft lines and paper.

    All ids begin with a hash of the picture: the same figure gives the same bytes, and figures on one page share no ids
    (otherwise browsers use the clip paths of the first for all).
    """
    import matplotlib

    frame = _settle(figure)
    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    # Text stays text, in the reader's own font: small, searchable, and accessible to screen readers.
    with matplotlib.rc_context({"svg.hashsalt": "jaxunlearn", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=metadata, bbox_inches=frame)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # Matplotlib's global style rule would apply to the whole page; the page's style sheet has it for figures.
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\s+<", "><", svg)
    prefix = f"f{hashlib.sha256(svg.encode()).hexdigest()[:10]}-"
    svg = re.sub(r"<[^>]*>", lambda tag: _tag_for_page(tag[0], prefix), svg)
    # Without width and height the picture fills the width of its box; the viewBox keeps its proportions.
    head, _, body = svg.partition(">")
    head = re.sub(r'\s(?:width|height|version)="[^"]*"', "", head)
    return f'{head} role="img">{body}'


def _tag_for_page(tag: str, prefix: str) -> str:
    """Rewrites one tag of a figure: ids begin with `prefix`, colours are the page's, paths have two decimals."""
    tag = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{prefix}", tag)
    tag = re.sub(r'\sd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+|\s+(?=[A-Z\"])", r"\1", path[0]), tag)
    return re.sub(
        r'\sstyle="[^"]*"',
        lambda colors: re.sub(r"#[0-9a-f]{6}\b", lambda color: _PAGE_COLORS.get(color[0], color[0]), colors[0]),
        tag,
    )


def html(report: Report) -> str:
    """Builds the self-contained page: the first screen, the notes, the sections, the provenance.

    The first screen is the summary, or the answer if there is none. Provenance entries that are mappings or sequences
    are printed one item per line.

    Raises:
      ShapeError: a table's row does not fit its header.

    Example:
      >>> from jaxunlearn.report import Report, page
      >>> text = page.html(Report("Audit", "37 of 500 samples are not forgotten.", (), {"seed": 42}))
      >>> "<h1>Audit</h1>" in text
      True
    """
    checksum = base64.b64encode(hashlib.sha256(script.TABLES.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{checksum}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    lines = [
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
    return "\n".join(line for line in lines if line) + "\n"


def frame(report: Report) -> str:
    """Returns the page inside an iframe, whose styles and script leave the page around it alone.

    Example:
      >>> from jaxunlearn.report import Report, page
      >>> page.frame(Report("Audit", "37 of 500 samples are not forgotten.", (), {}))[:15]
      '<iframe srcdoc='
    """
    text = html_module.escape(html(report), quote=True)
    return f'<iframe srcdoc="{text}" width="100%" height="{FRAME_HEIGHT}" style="border: 0"></iframe>'


def _first_screen(report: Report) -> str:
    title = f"<h1>{_escape(report.title)}</h1>"
    if not report.summary:
        return f'<p class="answer">{_escape(report.answer)}</p>\n{title}'
    cards = "\n".join(
        f"<div><dt>{_escape(question)}</dt>{''.join(f'<dd>{text}</dd>' for text in _paragraphs(answer))}</div>"
        for question, answer in report.summary
    )
    return f'<dl class="summary">\n{cards}\n</dl>\n{title}'


def _notes(notes: Sequence[str]) -> str:
    lines = "\n".join(f"<li>{_escape(note)}</li>" for note in notes)
    return f'<section class="notes">\n<h2>Notes</h2>\n<ul>\n{lines}\n</ul>\n</section>'


def _paragraphs(text: str) -> list[str]:
    return [_escape(paragraph) for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]


def _section(section: Section) -> str:
    paragraphs = [f"<p>{paragraph}</p>" for paragraph in _paragraphs(section.text)]
    table = _table(section.table, section.percent) if section.table is not None else ""
    svg = "" if section.figure is None else figure_svg(section.figure)
    figure = f"<figure>{_with_label(svg, section.title)}</figure>" if svg else ""
    lines = ["<section>", f"<h2>{_escape(section.title)}</h2>", *paragraphs, table, figure, "</section>"]
    return "\n".join(line for line in lines if line)


def _with_label(svg: str, title: str) -> str:
    return svg.replace('role="img">', f'role="img" aria-label="{_escape(title)}">', 1)


def _table(table: cells.Table, percent: bool) -> str:
    cells.check(table)
    best_cells = cells.best(table, percent=percent)
    attributes = [_class_attribute(table, column) for column in range(len(table.header))]
    head = "".join(
        f'<th scope="col"{attribute}>{_escape(title)}</th>'
        for title, attribute in zip(cells.titles(table, percent), attributes, strict=True)
    )
    rows = []
    for row, row_cells in enumerate(table.rows):
        elements = []
        for column, cell in enumerate(row_cells):
            content = _cell(cell, percent, (row, column) in best_cells)
            tag = "th" if column == 0 else "td"
            scope = ' scope="row"' if column == 0 else ""
            elements.append(f"<{tag}{scope}{attributes[column]}{_value_attribute(cell, percent)}>{content}</{tag}>")
        rows.append(f"<tr>{''.join(elements)}</tr>")
    body = "\n".join(rows)
    html_table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    title = f"<b>{_escape(table.title)}.</b> " if table.title else ""
    # The caption is above the box: inside, it would scroll away with a wide table.
    caption = f'<p class="caption">{title}{_escape(table.caption)}</p>' if title or table.caption else ""
    size_class = " tall" if len(rows) > LONG else ""
    label = _escape(table.title or "Table")
    return f'{caption}<div class="wide{size_class}" tabindex="0" role="region" aria-label="{label}">{html_table}</div>'


def _class_attribute(table: cells.Table, column: int) -> str:
    """Returns the class attribute of a column: numbers (right-aligned), short texts (one line) or long texts."""
    if cells.is_numeric(table, column):
        return ' class="number"'
    longest = max((len(str(row[column])) for row in table.rows), default=0)
    return ' class="long"' if longest > 40 else ' class="short"' if column and 4 < longest <= 24 else ""


def _value_attribute(cell: cells.Cell, percent: bool) -> str:
    """Returns the attribute by which a number is sorted (9 digits); empty if the cell's text is equivalent."""
    if isinstance(cell, str | bool):
        return ""
    value, text = cells.estimate(cell), cells.string(cell, percent=percent)
    if math.isnan(value):
        return ' data-value=""'
    digits = f"{value:.9g}".replace("inf", "Infinity")
    return "" if text in (digits, f"{value:.3f}") and float(text) == value else f' data-value="{digits}"'


def _cell(cell: cells.Cell, percent: bool, is_best: bool) -> str:
    """Returns a cell's HTML; findings take two lines, the estimate above its interval, so that columns stay narrow."""
    if not isinstance(cell, Finding):
        text, details = _escape(cells.string(cell, percent=percent)), ""
    else:
        texts = number_format.format_finding(cell, cells.num_digits(None, percent), percent=percent)
        text = _escape(" ".join(text for text in texts[:2] if text))
        details = "".join(f"<small>{_escape(part)}</small>" for part in texts[2:] if part)
    return f"<b>{text}</b>{details}" if is_best else f"{text}{details}"


def _provenance(provenance: Mapping[str, Any]) -> str:
    rows = [
        f'<tr><th scope="row">{_escape(str(name))}</th><td>{"<br>".join(map(_escape, _lines_of(value)))}</td></tr>'
        for name, value in provenance.items()
    ]
    body = "\n".join(rows)
    return (
        "<section>\n<h2>Where the numbers come from</h2>\n"
        '<div class="wide" tabindex="0" role="region" aria-label="Provenance">'
        f'<table class="provenance"><tbody>\n{body}\n</tbody></table></div>\n</section>'
    )


def _lines_of(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name} = {item}" for name, item in value.items()] or [number_format.MISSING]
    if isinstance(value, list | tuple):
        return [str(item) for item in value] or [number_format.MISSING]
    return str(value).splitlines() or [number_format.MISSING]


def _settle(figure: Any) -> Any:
    """Fixes a figure's layout; returns the area to save if texts reach beyond the figure's edges, else None.

    Constrained layout starts from the axes of the last drawing: saving again would move them slightly, and equal
    figures would give different files.
    """
    from matplotlib.transforms import Bbox

    if figure.get_layout_engine() is not None:
        _disable_math(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    frame, content = figure.bbox_inches, figure.get_tightbbox()
    overhang = max(frame.x0 - content.x0, frame.y0 - content.y0, content.x1 - frame.x1, content.y1 - frame.y1)
    return Bbox.union([frame, content.padded(0.04)]) if overhang > 0.001 else None


def _disable_math(figure: Any) -> None:
    """Turns off math parsing of all texts, because names may contain dollar signs.

    The numbers of logarithmic axes are matplotlib's own formulas and are left alone.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FixedLocator, LogFormatter

    number_ids = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = axis.get_ticklabels(which="both")
        if isinstance(axis.get_major_formatter(), LogFormatter):
            number_ids |= {id(label) for label in labels}
        elif isinstance(axis.get_major_locator(), FixedLocator):
            names = [label.get_text() for label in axis.get_ticklabels()]
            axis.set_ticklabels([escapes.visible(name) for name in names])
    for text in figure.findobj(Text):
        if id(text) not in number_ids:
            text.set_parse_math(False)
            text.set_text(escapes.visible(text.get_text()))


def _escape(text: str) -> str:
    return html_module.escape(escapes.visible(str(text)), quote=True)


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _save(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file atomically: `write` fills a temporary file next to `path`, which is then renamed."""
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
