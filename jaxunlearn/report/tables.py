"""Plain-text tables for the terminal."""

from collections.abc import Sequence


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns: what, and its value."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
