"""Saving what a report consists of: the only file of this room that writes."""

from pathlib import Path
from typing import Any

from jaxunlearn import errors


def save_figure(figure: Any, path: Path) -> None:
    """Saves a matplotlib figure as SVG (or by the suffix), without dates, so that equal figures are equal files.

    Raises:
      StoreError: cannot be written.
    """
    import matplotlib

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.stem}.part{path.suffix}")
        with matplotlib.rc_context({"svg.hashsalt": "jaxunlearn", "svg.fonttype": "none"}):
            figure.savefig(temporary, metadata={"Date": None} if path.suffix == ".svg" else None)
        temporary.replace(path)
    except OSError as error:
        raise errors.StoreError(f"cannot write {path} ({error.strerror or error}).") from error
