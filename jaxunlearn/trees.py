"""Pytrees whose leaves carry a leading model axis M: selecting, stacking and counting."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


def size(tree: Tree) -> int:
    """Returns the number of members M: the length of the first leaf's leading axis."""
    return int(jax.tree.leaves(tree)[0].shape[0])


def take(tree: Tree, rows: Any) -> Tree:
    """Selects members at positions `rows` (int, slice or index array) of every leaf; an int drops the model axis."""
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def stack(members: Sequence[Tree]) -> Tree:
    """Stacks single members into one tree with a leading model axis.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import trees
      >>> population = trees.stack([{"w": np.zeros(3)}, {"w": np.ones(3)}])
      >>> trees.size(population), trees.take(population, 1)["w"].tolist()
      (2, [1.0, 1.0, 1.0])
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def where(flag: jax.Array, new: Tree, old: Tree) -> Tree:
    """Returns `new` where the scalar flag of ONE member is true, else `old`; both trees have the same structure."""
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), new, old)


def count(tree: Tree) -> int:
    """Returns the number of scalars in all leaves (the parameter count of a `params` tree)."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def named_leaves(tree: Tree) -> list[tuple[str, Any]]:
    """Returns (path, leaf) pairs with readable paths such as `params/Dense_0/kernel`."""
    return [
        ("/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def split_variables(variables: Mapping[str, Tree]) -> tuple[Tree, dict[str, Tree]]:
    """Splits flax variables into parameters and model state, which are all other collections.

    Example:
      >>> from jaxunlearn import trees
      >>> trees.split_variables({"params": {"kernel": 1.0}, "batch_stats": {"mean": 0.0}})
      ({'kernel': 1.0}, {'batch_stats': {'mean': 0.0}})
    """
    return variables["params"], {name: leaf for name, leaf in variables.items() if name != "params"}


def join_variables(params: Tree, model_state: Mapping[str, Tree]) -> dict[str, Tree]:
    """Joins parameters and model state to flax variables: the inverse of `split_variables`."""
    return {"params": params, **model_state}


def to_host(tree: Tree) -> Tree:
    """Converts every leaf to a NumPy array (waits for the device)."""
    return jax.tree.map(np.asarray, jax.device_get(tree))
