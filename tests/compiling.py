"""Compiles as users do, for tests whose programs run for longer than optimising them takes."""

import contextlib

import jax


@contextlib.contextmanager
def optimised():
    """Turns the compiler's optimisation on for a while; `conftest.py` turns it off for the others."""
    was_off = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", was_off)
