"""Finds real data, which are no part of the repository: a test skips where they are missing."""

import pathlib

import pytest

SHARED = pathlib.Path(__file__).parents[1].parent / "shared" / "data"


def find(name):
    """Returns the path of a file of real data as text."""
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not at hand: real data beyond scikit-learn's are not part of the repository")
    return str(SHARED / name)
