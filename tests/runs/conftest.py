"""Whole runs of these tests leave their figures blank."""

import figures
import pytest


@pytest.fixture(autouse=True, scope="module")
def blank_figures():
    with figures.blank():
        yield
