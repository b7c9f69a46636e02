"""The records that flow between rooms: frozen, named, with shapes in the docstring.

    Dataset -> Split -> Population -> Logits -> Evidence -> Scores -> Finding

Arrays are leaves; static facts are `pytree_node=False`. Axis letters: M models, N samples, C classes, S shadows,
P population samples, R forget sets.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np

Array = jax.Array | np.ndarray


class Design(NamedTuple):
    """What the models of a role are, as draws: model r is of forget set r // repeats.

    Attributes:
      kind: "per_set", an original of its own for every forget set; "shared", ONE original for all; "crossed", original
        u for the u-th model of every forget set; "given", a user's models, of which nothing is known.
      sets: F forget sets (models, where they are given).
      repeats: U models of each forget set.
    """

    kind: str
    sets: int
    repeats: int = 1


@flax.struct.dataclass
class Dataset:
    """All rows of one data set: the first `num_train` rows are the train pool, the rest the held-out pool.

    Attributes:
      inputs: [N, ...] uint8 or float32. Images are NHWC. A network sees (inputs / scale - mean) / std. Of texts: [N, T]
        int32 token ids, padding at the end is -1.
      labels: [N] int32 class indices from 0; of texts: which group (document, author, topic) a text belongs to.
      ids: [N] int64, each row's number in the user's own file, from 0; held-out rows of a file of their own go on
        counting after the train rows. Positions in this record are not the file's where the pools were cut at random:
        whatever names a row to a user names it by `ids` (see `data.naming`).
      groups: [N] int32 or None: a second labelling (fine classes under coarse labels, demographic groups).
      ood: None, or the rows of excluded classes as a data set of their own (see `data.exclusion`), of the same kind and
        constants. No split draws from it, so no model trains, calibrates or is evaluated on it.
      name: the source's name; `num_train`, `num_classes`, `class_names` (may be empty).
      class_values: the user's own number of each class, empty where it is the label itself. Whatever names a class to a
        user goes through `data.naming`.
      group_names: names of the values of `groups`, may be empty.
      scale: divisor of raw inputs (255 for 8-bit pictures, 16 for digits, 1 for tabular data).
      mean, std: per channel or per feature after scaling; empty tuples mean no normalisation. `is_pool_scaled`: they
        were computed from the train pool (and are not published constants).
      names: [N] or None: what the user's file calls its rows (its array `ids`, or the paths of pictures).
      vocabulary: V, the number of token ids, where the rows are texts; 0 = they are not.
      prompts: [N] int32 or None: so many tokens at the start of a text are given and never learned.
      texts: [N] str or None: the texts themselves, for scores that read characters.
      notes: sentences about the source that a user must know (files that are left out).
    """

    inputs: Array
    labels: Array
    ids: Array
    groups: Array | None = None
    ood: "Dataset | None" = None
    name: str = flax.struct.field(pytree_node=False, default="")
    num_train: int = flax.struct.field(pytree_node=False, default=0)
    num_classes: int = flax.struct.field(pytree_node=False, default=0)
    class_names: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())
    class_values: tuple[int, ...] = flax.struct.field(pytree_node=False, default=())
    group_names: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())
    scale: float = flax.struct.field(pytree_node=False, default=1.0)
    mean: tuple[float, ...] = flax.struct.field(pytree_node=False, default=())
    std: tuple[float, ...] = flax.struct.field(pytree_node=False, default=())
    is_pool_scaled: bool = flax.struct.field(pytree_node=False, default=False)
    names: Array | None = None
    vocabulary: int = flax.struct.field(pytree_node=False, default=0)
    prompts: Array | None = None
    texts: Array | None = None
    notes: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())

    @property
    def num_answers(self) -> int:
        """How many answers a network chooses from: classes, or the tokens of the vocabulary."""
        return self.vocabulary or self.num_classes


def next_tokens(dataset: Dataset, rows: Array | slice = slice(None)) -> np.ndarray:
    """Returns what a language model is to predict at every position of the texts of a data set.

    Args:
      dataset: texts.
      rows: [N] of the data set; all if not given.

    Returns:
      [N, T] int32: the token after it; -1 where nothing is learned: in front of the prompt's end, before padding, and
      at the last position.
    """
    tokens = np.asarray(dataset.inputs, np.int32)[rows]
    targets = np.full_like(tokens, -1)
    targets[:, :-1] = tokens[:, 1:]
    if dataset.prompts is not None:
        given = np.arange(1, tokens.shape[1] + 1) < np.asarray(dataset.prompts)[rows, None]
        targets[given] = -1
    return targets


@flax.struct.dataclass
class Split:
    """Who plays which part: index arrays into the rows of a `Dataset`, all disjoint but for `forget` in `target`.

    Attributes:
      shadow: [n] int32 rows that only shadow models train on.
      target: [n] int32 rows that the original model trains on (the audited rows), in published order.
      population: [n] int32 held-out rows that calibrate scores ("ref" or validation set).
      test: [n] int32 held-out rows on which accuracy is reported.
      forget: [R, N] bool, one row per forget set; a subset of `target`. Retain = target and not forget.
      kind: set_random, one_class, class_percentage, classes, subclass, index_file or randperm.
      seed: the seed everything was drawn with.
    """

    shadow: Array
    target: Array
    population: Array
    test: Array
    forget: Array
    kind: str = flax.struct.field(pytree_node=False, default="set_random")
    seed: int = flax.struct.field(pytree_node=False, default=0)


@flax.struct.dataclass
class Population:
    """M models of one architecture as one pytree.

    Attributes:
      variables: flax variables (`params`, `batch_stats`), every leaf with a leading axis M.
      member_ids: [M] int32 global member numbers.
      diverged_at: [M] int32 step at which a member's loss stopped being finite and it was frozen; -1 = never.
      optimizer_state: optional, leading M.
      model: name of the architecture; `role`: shadow, original, retrained or unlearned:METHOD.
      fingerprint: of the stage that made it.
    """

    variables: Any
    member_ids: Array
    diverged_at: Array
    optimizer_state: Any = None
    model: str = flax.struct.field(pytree_node=False, default="")
    role: str = flax.struct.field(pytree_node=False, default="")
    fingerprint: str = flax.struct.field(pytree_node=False, default="")


@flax.struct.dataclass
class Logits:
    """Outputs of M models on N samples.

    Attributes:
      values: [M, N, C] float32 or float16, raw logits; on disk a memory-mapped .npy.
      labels: [N] int32.
      member_ids: [M] int32; `sample_ids`: [N] int32 rows of the data set.
      role: which population; `view`: clean, or augmented_K.
    """

    values: Array
    labels: Array
    member_ids: Array
    sample_ids: Array
    role: str = flax.struct.field(pytree_node=False, default="")
    view: str = flax.struct.field(pytree_node=False, default="clean")


@flax.struct.dataclass
class Evidence:
    """What one audit needs, as arrays (the door for logits from any framework).

    Attributes:
      unlearned: [N, C] logits of the audited model; labels: [N] int32. Everything else may be None.
      original: [N, C]; shadows: [S, N, C], every shadow OUT for every sample.
      forgotten: [N] bool or None (the truth, never seen by a score).
      population_original, population_unlearned, population_in: [P, C]; population_shadows: [S, P, C];
      population_labels: [P].
      shadow_train_logits: [S, m, C]; shadow_train_labels: [S, m]: each shadow on its own training rows.
      reference: [K, N, C], reference_member: [K, N] bool: models that trained on parts of the audited samples, for the
        standard online LiRA.
      posterior_pairs_original, posterior_pairs_unlearned: [S, q, C], posterior_pairs_forgotten: [S, q] bool: outputs
        of a model before and after
        forgetting on samples whose state is known, for UnLeak (per shadow, so that groups of shadows can be chosen).
      original_views, unlearned_views: [K, N, C], shadows_views: [K, S, N, C]: the same samples under K augmentations,
        for multi-query scores.
    """

    unlearned: Array
    labels: Array
    original: Array | None = None
    shadows: Array | None = None
    forgotten: Array | None = None
    population_original: Array | None = None
    population_unlearned: Array | None = None
    population_in: Array | None = None
    population_shadows: Array | None = None
    population_labels: Array | None = None
    shadow_train_logits: Array | None = None
    shadow_train_labels: Array | None = None
    reference: Array | None = None
    reference_member: Array | None = None
    posterior_pairs_original: Array | None = None
    posterior_pairs_unlearned: Array | None = None
    posterior_pairs_forgotten: Array | None = None
    original_views: Array | None = None
    unlearned_views: Array | None = None
    shadows_views: Array | None = None


@flax.struct.dataclass
class Scores:
    """One membership score per sample: [N] float32, higher = the sample still looks trained on.

    Faithful LiRA needs float64 for its range, confidence and loss for their resolution; everything else is float32.
    """

    values: Array
    name: str = flax.struct.field(pytree_node=False, default="")
    parameters: tuple[tuple[str, Any], ...] = flax.struct.field(pytree_node=False, default=())


@flax.struct.dataclass
class Finding:
    """One number with its interval: everything a report prints is one.

    Attributes:
      value, low, high: the number and its interval at `confidence_level`; low = high = NaN where none is defined.
      std: standard deviation over repetitions (shadow groups, seeds), NaN where there is one.
      metric: its name; `n`: how many observations it rests on; `of`, `against`: what was measured, on what.
      method: how the interval was made.
      retrained: the same metric of the retrained model, the goal of unlearning (None where it does not apply).
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    std: float = float("nan")
    metric: str = flax.struct.field(pytree_node=False, default="")
    n: int = flax.struct.field(pytree_node=False, default=0)
    confidence_level: float = flax.struct.field(pytree_node=False, default=0.95)
    of: str = flax.struct.field(pytree_node=False, default="")
    against: str = flax.struct.field(pytree_node=False, default="")
    method: str = flax.struct.field(pytree_node=False, default="")
    retrained: float | None = flax.struct.field(pytree_node=False, default=None)
