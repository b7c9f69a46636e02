"""Whole runs of these tests compose their figures without drawing them."""

import figures
import pytest


@pytest.fixture(autouse=True, scope="module")
def blank_figures():
    with figures.blank():
        yield
