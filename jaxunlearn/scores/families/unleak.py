"""UnLeak: a classifier of the change of a sample's posterior between the original and the unlearned model.

    both posteriors -> keep the three largest values, spread the remainder evenly -> order both by the original's
    -> feature = original - unlearned [C] -> one hidden layer of 100 ReLU units -> P(class "unlearned")

It is trained on pairs whose state is known: outputs of a model trained on all shadow rows against those of each shadow
model, on rows that the shadow did not train on (unlearned) and on as many that it did (retained).

Source: Chen et al., When Machine Unlearning Jeopardizes Privacy; IAM, section on UnLeak. The published code pairs
outputs of different samples for most shadows (it recomputes splits by another seed chain) and has no fixed seed; here
pairs come from the stored memberships and the seed is explicit.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import errors

KEPT = 3


@jax.jit
def features(original: jax.Array, unlearned: jax.Array) -> jax.Array:
    """Computes the [..., C] float32 change of the flattened, ordered posterior ("sorted_diff").

    The order of the C - 3 equal values is arbitrary; the last three columns belong to the original's three largest.

    Args:
      original: [..., C] logits, C > 3 (see `check_classes`).
      unlearned: [..., C] logits of the same samples.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.scores.families import unleak
      >>> original, unlearned = np.log(np.array([0.1, 0.1, 0.2, 0.6])), np.log(np.array([0.1, 0.2, 0.3, 0.4]))
      >>> [round(value, 2) for value in unleak.features(original, unlearned)[-2:].tolist()]
      [-0.1, 0.2]
    """
    before, after = _flattened(original), _flattened(unlearned)
    order = jnp.argsort(before, -1)
    return jnp.take_along_axis(before, order, -1) - jnp.take_along_axis(after, order, -1)


def check_classes(num_classes: int) -> None:
    """Raises a DataError for three classes or fewer, for which the flattened posterior is undefined."""
    if num_classes <= KEPT:
        raise errors.DataError(
            f"unleak needs more than {KEPT} classes (it keeps the {KEPT} largest and spreads the rest), not "
            f"{num_classes}. Leave it out with --scores or config.audit.scores."
        )


def fit_and_score(train: np.ndarray, forgotten: np.ndarray, audited: np.ndarray, seed: int = 0) -> np.ndarray:
    """Trains the classifier and returns membership scores P(retained) in [0, 1]; higher = more like a member.

    Args:
      train: [q, C] features of pairs whose state is known.
      forgotten: [q] bool.
      audited: [N, C] features to score.
      seed: of the classifier's initialisation, batches and validation split.

    Raises:
      DataError: fewer than 20 pairs, or only one class among them.
    """
    from sklearn.neural_network import MLPClassifier

    forgotten = np.asarray(forgotten, bool)
    if len(forgotten) < 20 or forgotten.all() or not forgotten.any():
        raise errors.DataError(
            f"unleak has {int(forgotten.sum())} forgotten and {int((~forgotten).sum())} retained training pairs; it "
            "needs some of both and at least 20. Give larger posterior_pairs_* arrays, or leave unleak out."
        )
    classifier = MLPClassifier(
        hidden_layer_sizes=(100,), learning_rate_init=0.01, alpha=1e-4, early_stopping=True, max_iter=1000,
        random_state=seed,
    )  # fmt: skip
    classifier.fit(np.asarray(train, np.float64), forgotten)
    return classifier.predict_proba(np.asarray(audited, np.float64))[:, 0].astype(np.float32)


def _flattened(logits: jax.Array) -> jax.Array:
    posterior = jax.nn.softmax(logits.astype(jnp.float32), -1)
    largest, top_classes = jax.lax.top_k(posterior, KEPT)
    remainder = (1.0 - jnp.sum(largest, -1, keepdims=True)) / (posterior.shape[-1] - KEPT)
    is_top = jnp.any(top_classes[..., None, :] == jnp.arange(posterior.shape[-1])[:, None], -1)
    return jnp.where(is_top, posterior, remainder)
