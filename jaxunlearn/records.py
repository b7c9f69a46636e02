"""The records that subpackages exchange: frozen, named, with shapes in the docstring.

    Dataset -> Split -> logits -> Evidence -> Scores -> Finding

Arrays are leaves; static facts are `pytree_node=False`. Axis letters: M models, N samples, C classes, S shadows,
P population samples, R forget sets.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np

from jaxunlearn import errors

Array = jax.Array | np.ndarray


def _equal(first: Any, second: object) -> bool:
    """Returns whether two records hold equal arrays and facts; arrays themselves compare entry by entry."""
    structures: list[Any] = [jax.tree.structure(record) for record in (first, second)]
    if type(first) is not type(second) or structures[0] != structures[1]:
        return False
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(leaf, other) for leaf, other in pairs)


class Design(NamedTuple):
    """How the models of a role were sampled: model r belongs to forget set r // repeats.

    Attributes:
      kind: "per_set", a separate original for every forget set; "shared", ONE original for all; "crossed", original u
        for the u-th model of every forget set; "given", a user's models, about which nothing is known.
      sets: F forget sets; for "given", the number of models.
      repeats: U models per forget set.
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
      ids: [N] int64, each row's number in the user's own file, from 0; held-out rows from a separate file are numbered
        after the train rows. Where the pools were split at random, positions in this record differ from the file's:
        messages to users name rows by `ids` (see `data.naming`).
      groups: [N] int32 or None: a second labelling (fine classes under coarse labels, demographic groups).
      ood: None, or the rows of excluded classes as a separate data set of the same kind and constants (see
        `data.exclusion`). No split draws from it, so no model trains, calibrates or is evaluated on it.
      name: the source's name; `num_train`, `num_classes`, `class_names` (may be empty).
      class_values: the user's own number of each class, empty where it equals the label. Messages to users name classes
        by `data.naming`.
      group_names: names of the values of `groups`, may be empty.
      scale: divisor of raw inputs (255 for 8-bit pictures, 16 for digits, 1 for tabular data).
      mean, std: per channel or per feature after scaling; empty tuples mean no normalisation. `is_pool_scaled`: they
        were computed from the train pool (and are not published constants).
      names: [N] or None: names of the rows in the user's file (its array `ids`, or the paths of pictures).
      vocabulary: V, the number of token ids, where the rows are texts; 0 = they are not.
      prompts: [N] int32 or None: number of tokens at the start of a text that are given and never learned.
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
    __eq__ = _equal

    @property
    def num_answers(self) -> int:
        """How many answers a network chooses from: classes, or the tokens of the vocabulary."""
        return self.vocabulary or self.num_classes


def next_tokens(dataset: Dataset, rows: Array | slice = slice(None)) -> np.ndarray:
    """Returns the next-token targets of the texts of a data set.

    Args:
      dataset: texts.
      rows: [N] of the data set; all by default.

    Returns:
      [N, T] int32: the next token; -1 where nothing is learned: within the prompt, before padding, and at the last
      position.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.records import Dataset, next_tokens
      >>> next_tokens(Dataset(np.array([[5, 6, 7, -1]]), np.zeros(1), np.zeros(1), vocabulary=10))
      array([[ 6,  7, -1, -1]], dtype=int32)
    """
    tokens = np.asarray(dataset.inputs, np.int32)[rows]
    targets = np.full_like(tokens, -1)
    targets[:, :-1] = tokens[:, 1:]
    if dataset.prompts is not None:
        is_prompt = np.arange(1, tokens.shape[1] + 1) < np.asarray(dataset.prompts)[rows, None]
        targets[is_prompt] = -1
    return targets


def positions(recorded: Array, rows: Array) -> np.ndarray:
    """Returns the positions of rows of a data set among the rows that were recorded.

    Args:
      recorded: [n] row numbers, sorted.
      rows: row numbers, any shape.

    Raises:
      DataError: a row was not recorded.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn import records
      >>> records.positions(np.array([2, 5, 7]), np.array([7, 2]))
      array([2, 0])
    """
    recorded, rows = np.asarray(recorded), np.asarray(rows)
    # A search alone would answer with the neighbour of a missing row.
    is_missing = ~np.isin(rows, recorded)
    if is_missing.any():
        raise errors.DataError(
            f"{int(is_missing.sum())} of {rows.size} rows were not recorded, the first is row "
            f"{int(rows[is_missing][0])} of the data set. Delete the folder logits/ of the run and run the same "
            "command again."
        )
    return np.searchsorted(recorded, rows)


@flax.struct.dataclass
class Split:
    """The roles of rows: index arrays into a `Dataset`, disjoint except for `forget` within `target`.

    Attributes:
      shadow: [n] int32 rows that only shadow models train on.
      target: [n] int32 rows that the original model trains on (the audited rows), in published order.
      population: [n] int32 held-out rows that calibrate scores ("ref" or validation set).
      test: [n] int32 held-out rows on which accuracy is reported.
      forget: [R, N] bool, one row per forget set; a subset of `target`. Retain = target and not forget.
      kind: set_random, one_class, class_percentage, classes, subclass, index_file or randperm.
      seed: of all random draws.
    """

    shadow: Array
    target: Array
    population: Array
    test: Array
    forget: Array
    kind: str = flax.struct.field(pytree_node=False, default="set_random")
    seed: int = flax.struct.field(pytree_node=False, default=0)
    __eq__ = _equal


@flax.struct.dataclass
class Evidence:
    """The arrays of one audit: the input for logits from any framework.

    Attributes:
      unlearned: [N, C] logits of the audited model, its raw outputs before any softmax: some scores (RMIA, EMIA, the
        margin) change with a constant added to a row, so log-probabilities give other values; labels: [N] int32. All
        others may be None.
      original: [N, C]; shadows: [S, N, C], every shadow OUT for every sample.
      forgotten: [N] bool or None (the ground truth; scores never see it).
      population_original, population_unlearned, population_in: [P, C]; population_shadows: [S, P, C];
      population_labels: [P].
      shadow_train_logits: [S, m, C]; shadow_train_labels: [S, m]: each shadow on its own training rows.
      reference: [K, N, C], reference_member: [K, N] bool: models trained on subsets of the audited samples, for the
        standard online LiRA.
      posterior_pairs_original, posterior_pairs_unlearned: [S, q, C], posterior_pairs_forgotten: [S, q] bool: outputs
        of a model before and after forgetting, on samples whose state is known, for UnLeak (per shadow, so that groups
        of shadows can be selected).
      original_views, unlearned_views: [K, N, C], shadows_views: [K, S, N, C]: the same samples under K augmentations,
        for multi-query scores.
      retrained, population_retrained: [N, C], [P, C] of exact retraining; snapshots: [L, K, N, C] models at K epochs of
        L trainings; ids, person: [N] names of the rows and of the persons they belong to; shadow_saw: [S, N] bool,
        which shadow was trained on which row. An audit reads these, scores do not.
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
    retrained: Array | None = None
    population_retrained: Array | None = None
    snapshots: Array | None = None
    ids: Array | None = None
    person: Array | None = None
    shadow_saw: Array | None = None
    __eq__ = _equal


@flax.struct.dataclass
class Scores:
    """One membership score per sample: [N] float32, higher = the sample still looks trained on.

    float64 where float32 lacks the range (faithful LiRA) or the resolution (confidence, loss).
    """

    values: Array
    name: str = flax.struct.field(pytree_node=False, default="")
    parameters: tuple[tuple[str, Any], ...] = flax.struct.field(pytree_node=False, default=())
    __eq__ = _equal


@flax.struct.dataclass
class Finding:
    """One number with its interval: the unit of every report.

    Attributes:
      value, low, high: the number and its interval at `confidence_level`; low = high = NaN without an interval.
      std: standard deviation over repetitions (shadow groups, seeds); NaN for a single one.
      metric: its name; `n`: number of observations; `of`, `against`: what was measured, on what.
      method: of the interval.
      retrained: the same metric of the retrained model, the goal of unlearning (None where it does not apply).

    Example:
      >>> from jaxunlearn.records import Finding
      >>> Finding(0.9, 0.85, 0.95, metric="auc").to_dict()["low"]
      0.85
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

    def to_dict(self) -> dict[str, Any]:
        """Returns its fields as a dict."""
        return dict(vars(self))
