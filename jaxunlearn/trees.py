"""Pytrees whose leaves carry a leading model axis M: taking, joining, padding and comparing members."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


def size(tree: Tree) -> int:
    """The number of members M: the length of the first leaf's leading axis."""
    return int(jax.tree.leaves(tree)[0].shape[0])


def take(tree: Tree, rows: Any) -> Tree:
    """Members at positions `rows` (int, slice or index array) of every leaf; an int drops the model axis."""
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def stack(members: Sequence[Tree]) -> Tree:
    """Single members to one tree with a leading model axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def where(flag: jax.Array, new: Tree, old: Tree) -> Tree:
    """`new` where the scalar flag of ONE member is true, else `old`; both trees of equal structure."""
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), new, old)


def count(tree: Tree) -> int:
    """Number of scalars in all leaves (the parameter count of a `params` tree)."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def named_leaves(tree: Tree) -> list[tuple[str, Any]]:
    """(path, leaf) pairs with readable paths such as `params/Dense_0/kernel`."""
    return [
        ("/".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def to_host(tree: Tree) -> Tree:
    """Every leaf as a NumPy array (waits for the device)."""
    return jax.tree.map(np.asarray, jax.device_get(tree))
