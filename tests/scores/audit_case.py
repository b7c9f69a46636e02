"""Random evidence with every array there is, in which forgetting shows: forgotten samples answer like OUT models."""

import numpy as np

from jaxunlearn.records import Evidence

IN, OUT = 3.5, 1.0


def make(
    seed=0, samples=60, shadows=4, classes=6, population=31, train_rows=25, views=2, pairs=40, references=6, scale=1.5
):  # fmt: skip
    """Evidence of float32 arrays; IN models raise the true class by 3.5, OUT models by 1."""
    draw = np.random.default_rng(seed)
    labels, population_labels = draw.integers(0, classes, samples), draw.integers(0, classes, population)
    train_labels = draw.integers(0, classes, (shadows, train_rows))
    forgotten = draw.permutation(samples) < max(1, samples // 2)
    member = (np.arange(references)[:, None] + np.arange(samples)) % 2 == 0
    pairs_forgotten = np.tile(np.arange(pairs) % 2 == 0, (shadows, 1))
    pair_labels = draw.integers(0, classes, (shadows, pairs))

    def logits(true, raised, count=()):
        shape = (*count, *np.shape(true)) if np.ndim(true) == 1 else np.shape(true)
        values = scale * draw.normal(size=(*shape, classes))
        hot = np.arange(classes) == np.broadcast_to(true, shape)[..., None]
        return (values + np.broadcast_to(raised, shape)[..., None] * hot).astype(np.float32)

    def unlearn(before, after, is_forgotten):
        """Answers after forgetting: new ones for forgotten samples, nearly the old ones for the others."""
        retained = before + 0.1 * draw.normal(size=before.shape)
        return np.where(is_forgotten[..., None], after, retained).astype(np.float32)

    original, pairs_original = logits(labels, IN), logits(pair_labels, IN)
    views_original = logits(labels, IN, (views,))
    views_out = logits(labels, OUT, (views, shadows + 1))
    population_original = logits(population_labels, OUT)
    return Evidence(
        unlearned=unlearn(original, logits(labels, OUT), forgotten),
        labels=labels.astype(np.int32),
        original=original,
        shadows=logits(labels, OUT, (shadows,)),
        forgotten=forgotten,
        population_original=population_original,
        population_unlearned=unlearn(population_original, population_original, np.zeros(population, bool)),
        population_in=logits(population_labels, IN),
        population_shadows=logits(population_labels, OUT, (shadows,)),
        population_labels=population_labels.astype(np.int32),
        shadow_train_logits=logits(train_labels, IN),
        shadow_train_labels=train_labels.astype(np.int32),
        reference=logits(labels, np.where(member, IN, OUT), (references,)),
        reference_member=member,
        posterior_pairs_original=pairs_original,
        posterior_pairs_unlearned=unlearn(pairs_original, logits(pair_labels, OUT), pairs_forgotten),
        posterior_pairs_forgotten=pairs_forgotten,
        original_views=views_original,
        unlearned_views=unlearn(views_original, views_out[:, 0], np.broadcast_to(forgotten, (views, samples))),
        shadows_views=views_out[:, 1:],
    )


def fields(evidence):
    """name -> array of the arrays that are there."""
    return {name: value for name, value in vars(evidence).items() if value is not None}
