"""Random keys derived from names and global member numbers, never from positions.

    root(seed) -> stream(key, "init") -> member(key, 37) -> at(key, epoch) -> ...

A key depends only on its purpose, so member 37 draws the same numbers in a population of 40 or 128, in chunks of 8 or
32, on one device or four, and after a restart. Threefry only: the `rbg` generators give different numbers under `vmap`.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

IMPLEMENTATION = "threefry2x32"


def root(seed: int) -> jax.Array:
    """Returns the root key of a run: a scalar typed PRNG key from a seed in [0, 2**32).

    Example:
      >>> from jaxunlearn import keys
      >>> train = keys.stream(keys.root(42), "train")
      >>> train == keys.stream(keys.root(42), "init")
      Array(False, dtype=bool)
    """
    return jax.random.key(seed, impl=IMPLEMENTATION)


def name_hash(name: str) -> int:
    """Returns a fixed 32-bit hash of a stream name; the same in every process and version."""
    return int.from_bytes(hashlib.blake2s(name.encode(), digest_size=4).digest(), "little")


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of a named stream ("init", "train", "view"): folds in a fixed hash of the name."""
    return jax.random.fold_in(key, name_hash(name))


def member(key: jax.Array, member_id: jax.Array | np.ndarray | int) -> jax.Array:
    """Returns the key of one member: folds in its global number, independent of population and chunk."""
    return jax.random.fold_in(key, jnp.asarray(member_id))


def at(key: jax.Array, count: jax.Array | int) -> jax.Array:
    """Returns the key of one epoch or step: folds in its number, so that a resumed run repeats the draws."""
    return jax.random.fold_in(key, count)
