"""Figures that are not drawn: drawing is a third of what a run costs, and few tests look at a picture.

`tests/launch` and `tests/runs` leave them blank; whoever makes a verb's first run draws them: `with drawn():`.
"""

import contextlib
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from jaxunlearn.report import page
from jaxunlearn.report.figures import figures

REAL = page._settle, Figure.savefig, figures.exposure


def blank():
    """Every figure is saved as an empty picture while the block runs, and composed first but for one."""
    return _saved_by(lambda figure: None, _save_blank, lambda *arguments: Figure())


def drawn():
    """Figures are drawn while the block runs, as users see them."""
    return _saved_by(*REAL)


@contextlib.contextmanager
def _saved_by(settle, savefig, exposure):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(page, "_settle", settle)
        patched.setattr(Figure, "savefig", savefig)
        patched.setattr(figures, "exposure", exposure)  # of the shadow models: part of every run
        yield


def _save_blank(figure, target, **options):
    svg = '<svg xmlns="http://www.w3.org/2000/svg"></svg>'
    target.write_text(svg) if isinstance(target, Path) else target.write(svg)
