"""Plain-text tables for the terminal."""

from collections.abc import Sequence


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns: what, and its value."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a header line; the first column is left-aligned, the others right-aligned."""
    lines = [list(headers), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        first = f"{cells[0]:<{widths[0]}}"
        return "  ".join([first, *[f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True)]])

    return "\n".join([line(lines[0]), "  ".join("-" * width for width in widths), *[line(row) for row in lines[1:]]])
