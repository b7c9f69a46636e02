"""Compiling is nearly all that these tests do; the programs themselves take milliseconds."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compiling():
    """Turns the compiler's expensive passes off for this folder."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
