"""Unlearning methods as frozen records of pure functions, written for ONE member of a population.

    builder(lr=..., epochs=...) -> Method = Phases in sequence
    Phase = estimates, then epochs of gradient steps (objective -> gradient -> transform), or a single transform (a
    one-shot change)

A builder is a plain function whose arguments are the method's hyperparameters, all with defaults. Float arguments may
differ between members (forget sets, values of a sweep): inside the compiled program the builder is called with traced
scalars, so it must not branch on them. Integers, bools and strings determine the structure. The same builder is called
on the host with each member's own plain numbers, where `StreamSpec.rows` is evaluated.

    def my_method(lr: float = 0.01, epochs: int = 3):
        def objective(outputs, batches, context):
            keep = losses.cross_entropy(outputs["retain"], batches["retain"])
            return keep - 0.05 * losses.cross_entropy(outputs["forget"], batches["forget"])
        streams = {"retain": StreamSpec("retain"), "forget": StreamSpec("forget")}
        return Method((Phase(transforms.sgd(lr), (GradientStep(objective),), streams, epochs),))
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxunlearn.population import DeviceDataset, StepInfo, Stream
from jaxunlearn.unlearn.base.network import Network

Tree = Any
Scalar = jax.Array | float


class MemberRows(NamedTuple):
    """The rows that ONE member may read; host side.

    Attributes:
      forget, retain, validation: int32 rows of the data set: to be forgotten, retained, and held out (population rows).
      labels: [N_all] int32 of the data set (of texts: groups); `kinds`: the classes by which rows are forgotten:
        subclasses if there are any, else the labels.
      test: rows on which accuracies are reported; only for methods whose published code calibrates on them.
      submodel: index in the member's ensemble (SISA), else 0.
      rng: the member's numpy Generator, which repeats its draws in every call; use it in `StreamSpec.rows` only.
    """

    forget: np.ndarray
    retain: np.ndarray
    validation: np.ndarray
    labels: np.ndarray
    submodel: int
    rng: np.random.Generator
    kinds: np.ndarray = np.zeros(0, np.int32)
    test: np.ndarray = np.zeros(0, np.int32)


Rows = str | Callable[[MemberRows], np.ndarray]
Labels = Callable[[jax.Array, "Samples", int], jax.Array]  # (key, samples, num_classes) -> labels [B] int32


class StreamSpec(NamedTuple):
    """The batches that a phase or an estimate reads.

    Attributes:
      rows: "forget", "retain" or "validation"; names joined by a plus are read as one list in that order
        ("retain+forget"); a tuple gives segments that follow each other without sharing a batch (("forget",
        "retain")); a function of `MemberRows` returns other rows.
      batch: rows per step; 0 = the run's batch size.
      shuffle: a new order every epoch, or always the order of the rows.
      continue_across_epochs: an accompanying stream continues in the next epoch where it stopped, instead of starting
        again.
      labels: replaces the labels; None = the true ones. See `labels.py`.
      fresh_labels: `labels` are drawn again in every epoch instead of once.
    """

    rows: Rows | tuple[Rows, ...] = "retain"
    batch: int = 0
    shuffle: bool = True
    continue_across_epochs: bool = False
    labels: Labels | None = None
    fresh_labels: bool = False


class Samples(NamedTuple):
    """One batch as objectives and estimates see it.

    Attributes:
      inputs: [B, ...] float32, normalised (and augmented): what the network takes; of texts [B, T] int32 tokens.
      labels: [B] int32, as replaced by `StreamSpec.labels`; of texts [B, T], the next tokens, -1 = none.
      weights: [B] float32, 0 = padding.
      rows: [B] int32 rows of the data set.
      is_forget: [B] bool, True = in the forget set.
    """

    inputs: jax.Array
    labels: jax.Array
    weights: jax.Array
    rows: jax.Array
    is_forget: jax.Array


class SavedState(NamedTuple):
    """State at the end of a phase, saved under the name `Phase.save_as`."""

    params: Tree
    model_state: Tree
    optimizer: Tree


class Features(NamedTuple):
    """Hidden features of one stream, each [B, D] float32 ([B, T, D] of texts), shallow to deep (`feature_paths`).

    Attributes:
      current: of the model in training.
      original: of the original model in evaluation mode, without gradient.
    """

    current: tuple[jax.Array, ...]
    original: tuple[jax.Array, ...]


class StepContext(NamedTuple):
    """What an objective can use in addition to its outputs.

    Attributes:
      network: the model as pure functions.
      params: current parameters (differentiable); `reference`: those of the original model.
      teachers: teacher -> stream -> logits [B, C], in evaluation mode, without gradient.
      estimates: estimates of the phase by name; `saved_states`: SavedStates of earlier phases.
      step_info: epoch, fraction, step.
      key: of this step.
      features: stream -> Features, of the streams of `GradientStep.features`.
    """

    network: Network
    params: Tree
    reference: Tree
    teachers: Mapping[str, Mapping[str, jax.Array]]
    estimates: Mapping[str, Tree]
    saved_states: Mapping[str, SavedState]
    step_info: StepInfo
    key: jax.Array
    features: Mapping[str, Features] = {}


# (logits by stream, samples by stream, context) -> scalar float32 to be minimised
Objective = Callable[[Mapping[str, jax.Array], Mapping[str, Samples], StepContext], jax.Array]


class GradientStep(NamedTuple):
    """One gradient step on one objective.

    Attributes:
      objective: one function; or {"forget": ..., "retain": ...}, whose gradients are computed separately and passed to
        the transform as `forget_grads` and `retain_grads`, their values as `losses` (the gradient is their sum).
      streams: names of the streams on which the model is evaluated, in this order (in which BatchNorm statistics move);
        empty = all of the phase except `eval_streams`.
      interval: the step is taken at steps 0, interval, 2 * interval ... of the phase.
      pre_transform: stateless transform of this step's gradient before the phase's transform (mask, clip).
      cost: gradient passes per row read, for the computation of costs; 0 = one per objective.
      row_filter: objective -> (samples -> [B] bool): rows that this objective uses; all others become padding (also for
        BatchNorm).
      eval_streams: names of further streams on which the model is evaluated, always in evaluation mode; BatchNorm
        statistics do not move on them.
      features: names of streams, among those evaluated in the mode of the phase, whose hidden features the objective
        reads.
    """

    objective: Objective | Mapping[str, Objective]
    streams: tuple[str, ...] = ()
    interval: int = 1
    pre_transform: optax.GradientTransformation | None = None
    cost: float = 0.0
    row_filter: Mapping[str, Callable[[Samples], jax.Array]] = {}
    eval_streams: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


class EstimateContext(NamedTuple):
    """ONE member as seen by estimates; traced.

    Attributes:
      network, params, model_state: the current model (model_state: flax collections such as batch_stats).
      reference: variables {"params", ...} of the original model.
      saved_states: SavedStates of earlier phases; `estimates`: earlier estimates of the same phase.
      data: the data set on the device; `streams`, `stream_specs`: of this estimate (see `passes.py`).
      forget: [N_all] bool.
      mode: "train" (batch statistics, running ones move) or "eval".
      key: of this estimate; `labels_key`: of drawn labels, which stay the same over epochs and phases.
      augment: whether inputs are augmented.
    """

    network: Network
    params: Tree
    model_state: Tree
    reference: Tree
    saved_states: Mapping[str, SavedState]
    estimates: Mapping[str, Tree]
    data: DeviceDataset
    streams: Mapping[str, Stream]
    stream_specs: Mapping[str, StreamSpec]
    forget: jax.Array
    mode: str
    key: jax.Array
    labels_key: jax.Array
    augment: bool


class Estimate(NamedTuple):
    """A quantity computed in a streamed pass before a phase: importances, Fisher, saliency, thresholds.

    Attributes:
      compute: EstimateContext -> (tree, model_state): the estimate, and the BatchNorm statistics after it
        (`member.model_state` unless it ran the network in training mode).
      stream_specs: the streams it reads, each once.
      cost: gradient passes per row read, for the computation of costs (a forward pass counts 1/3); a function of
        (rows, number of classes) gives the passes of the whole estimate.
      augment: whether its inputs are augmented if those of the run are; only where published results depend on it.
    """

    compute: Callable[[EstimateContext], tuple[Tree, Tree]]
    stream_specs: Mapping[str, StreamSpec] = {}
    cost: float | Callable[[int, int], float] = 1.0
    augment: bool = False


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase of a method: its estimates, then its gradient steps or one-shot change.

    Attributes:
      transform: gradients to parameter changes, as in optax; with extras (see `transforms.py`).
      gradient_steps: taken in every step; empty = a one-shot phase: the transform is applied once, to gradients of 0.
      stream_specs: streams by name; the first is the primary one: an epoch is one pass over it, the others are cycled.
      epochs: passes over the primary stream; `max_steps`: maximum number of steps in total, 0 = no limit.
      estimates: computed in order before the phase; `every_epoch`: computed again at the start of every epoch.
      teachers: name -> "original", "fresh" (a random network) or the name of a saved state.
      start: "current", "original" (parameters and statistics) or "fresh" (a new random network).
      save_as: name under which the state after the phase is saved.
      mode: "train" or "eval" for BatchNorm and dropout; "" = by the run's BatchNorm policy.
      same_optimizer: continue with the optimizer state of the previous phase, and with its estimates if this phase has
        none.
      first_epoch: number of its first epoch for schedules.
      widen: add one output to the network for this phase, which is dropped afterwards.
      frozen: function of the network that returns the module paths ("Dense_1") whose parameters do not change in this
        phase; None = all may change.
    """

    transform: optax.GradientTransformation
    gradient_steps: tuple[GradientStep, ...] = ()
    stream_specs: Mapping[str, StreamSpec] = dataclasses.field(default_factory=dict)
    epochs: int = 1
    max_steps: int = 0
    estimates: Mapping[str, Estimate] = dataclasses.field(default_factory=dict)
    every_epoch: Mapping[str, Estimate] = dataclasses.field(default_factory=dict)
    teachers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    start: str = "current"
    save_as: str = ""
    mode: str = ""
    same_optimizer: bool = False
    first_epoch: int = 0
    widen: bool = False
    frozen: Callable[[Network], tuple[str, ...]] | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """An unlearning method.

    Attributes:
      phases: run in sequence, from the original model.
      bn: meaning of the policy "auto" for this method: "frozen" (running statistics are used and never move),
        "recalibrate" (batch statistics are used; afterwards the running ones are estimated anew on the retained rows)
        or "faithful" (as published: the running ones move with every batch).
      ensemble: models per forget set whose probabilities are averaged (SISA).
      augment: whether its training batches are augmented if those of the run are; False = not, as published.
      left_training: published code returns the model in training mode, and measures accuracies on retained and forget
        rows before anything else: with the policy "faithful" that moves the running statistics once more.
      fixed_loss: its steps follow a recorded training, so that a wrapper cannot add its own loss.
      mid: number of phases after which the model is a separate result, METHOD@mid; 0 = none.
    """

    phases: tuple[Phase, ...]
    bn: str = "frozen"
    ensemble: int = 1
    augment: bool = True
    left_training: bool = False
    fixed_loss: bool = False
    mid: int = 0


Builder = Callable[..., Method]
