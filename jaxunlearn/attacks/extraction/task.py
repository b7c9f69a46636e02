"""One extraction as a task of the engine, and the extractions of V victims as one job.

    step = generator_steps x (noise -> inputs -> estimated gradient -> generator), clone_steps x (noise -> inputs ->
    victim's answers -> clone)

The generator is always in training mode; the clone only in its own steps. The best clone is that of the epoch in which
it agrees with its victim on the most held-out rows.

Source: OUR reference, `dfme_attack`. Differs from the published code: all directions are evaluated (there some are
dropped where m is large), and no epoch goes beyond the budget.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import checks, errors, keys, population, trees
from jaxunlearn.attacks.extraction import losses
from jaxunlearn.attacks.extraction import options as option
from jaxunlearn.attacks.extraction.options import PUBLISHED, Options
from jaxunlearn.attacks.extraction.victims import Victim
from jaxunlearn.population import Batch, Metrics, State, StepInfo, Task, recipe

Tree = Any
Inputs = Callable[[jax.Array], jax.Array]


def task(
    clone: nn.Module,
    generator: nn.Module,
    victim: Victim,
    shape: tuple[int, ...],
    options: Options = PUBLISHED,
    *,
    to_inputs: Inputs = lambda values: values,
    prepare: Inputs = lambda raw: raw.astype(jnp.float32),
) -> Task:
    """Builds the task of one extraction.

    Args:
      clone: `module.apply(variables, inputs, train=...) -> logits [B, C]`; it need not be the victim's architecture.
      generator: from `models.architectures.generator.build(shape)`.
      victim: see `victims`; what differs between victims comes in the constants of the job.
      shape: of one network input.
      options: see `Options`.
      to_inputs: values in (-1, 1) -> network inputs of clone and victim. Published: as they are, also where the victim
        was trained on normalised pictures.
      prepare: raw rows of the data set -> network inputs, for judging the clone.

    Raises:
      ConfigError: options out of range, or a budget below one iteration.

    Example:
      >>> import jax
      >>> from jaxunlearn.attacks.extraction import Options, task, victims
      >>> from jaxunlearn.models.architectures import dense, generator
      >>> network = dense.Mlp(2)
      >>> options = Options(budget=1000, batch=4, latents=3, width=2)
      >>> extraction = task(network, generator.build((6,), 2), victims.network(network), (6,), options)
      >>> jax.eval_shape(extraction.init, jax.random.key(0)).params["clone"]["Dense_0"]["kernel"].shape
      (6, 2)
    """
    option.check(options)
    clone_recipe, generator_recipe = option.clone_recipe(options), option.generator_recipe(options)

    def generate(params: Tree, model_state: Tree, latents: jax.Array) -> tuple[jax.Array, Tree]:
        """Returns the generator's outputs before the tanh, and its model state afterwards."""
        variables = trees.join_variables(params, model_state)
        raw, new_state = generator.apply(variables, latents, train=True, mutable=list(model_state))
        return jnp.asarray(raw), dict(new_state)

    def noise(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (options.batch, options.latents), jnp.float32)

    def init(key: jax.Array) -> State:
        blank = to_inputs(jnp.zeros((2, *shape), jnp.float32))
        initial = {
            "generator": generator.init(keys.stream(key, "generator"), noise(key)[:2], train=True),
            "clone": clone.init(keys.stream(key, "clone"), blank, train=False),
        }
        parts = {name: trees.split_variables(variables) for name, variables in initial.items()}
        params, model_state = ({name: pair[side] for name, pair in parts.items()} for side in (0, 1))
        optimizer = {
            "generator": recipe.make_optimizer(generator_recipe, 0.0, 0.0).init(params["generator"]),
            "clone": recipe.make_optimizer(clone_recipe, 0.0, 0.0).init(params["clone"]),
        }
        return State(params, model_state, optimizer)

    def generator_step(state: State, key: jax.Array, factor: jax.Array, constants: Tree) -> State:
        def run(params: Tree) -> tuple[jax.Array, Tree]:
            return generate(params, state.model_state["generator"], noise(keys.stream(key, "latents")))

        raw, pull_back, model_state = jax.vjp(run, state.params["generator"], has_aux=True)
        clone_variables = trees.join_variables(state.params["clone"], state.model_state["clone"])

        def objective(values: jax.Array) -> jax.Array:
            inputs = to_inputs(jnp.tanh(values))
            logits = jnp.asarray(clone.apply(clone_variables, inputs, train=False))
            return -losses.disagreement(logits, victim(constants, inputs), options.loss, options.correction)

        units = losses.directions(keys.stream(key, "directions"), options.directions, raw)
        gradient, _ = losses.estimate(objective, raw, units, options.step_size)
        classes = jax.eval_shape(victim, constants, raw).shape[-1]
        gradient = gradient * losses.published_factor(options.loss, options.batch, classes)
        (gradients,) = pull_back(gradient)
        return _apply_gradients(state, "generator", gradients, model_state, generator_recipe, factor)

    def clone_step(
        state: State, key: jax.Array, factor: jax.Array, constants: Tree
    ) -> tuple[State, tuple[jax.Array, jax.Array]]:
        raw, model_state = generate(state.params["generator"], state.model_state["generator"], noise(key))
        inputs = jax.lax.stop_gradient(to_inputs(jnp.tanh(raw)))
        answers = victim(constants, inputs)
        state = state._replace(model_state={**state.model_state, "generator": model_state})

        def objective(params: Tree) -> tuple[jax.Array, tuple[Tree, jax.Array]]:
            clone_state = state.model_state["clone"]
            logits, new_state = clone.apply(
                trees.join_variables(params, clone_state), inputs, train=True, mutable=list(clone_state),
                rngs={"dropout": keys.stream(key, "dropout")},
            )  # fmt: skip
            distances = losses.disagreement(jnp.asarray(logits), answers, options.loss, options.correction)
            return jnp.mean(distances), (dict(new_state), jnp.asarray(logits))

        (loss, (new_state, logits)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params["clone"])
        agreement = jnp.sum(jnp.argmax(logits, -1) == jnp.argmax(answers, -1), dtype=jnp.float32)
        return _apply_gradients(state, "clone", gradients, new_state, clone_recipe, factor), (loss, agreement)

    def step(
        state: State, batches: Mapping[str, Batch], step_info: StepInfo, key: jax.Array, constants: Tree
    ) -> tuple[State, Metrics]:
        del batches  # they only count the iterations
        factor = recipe.schedule_factor(clone_recipe, step_info.epoch, step_info.fraction)
        with jax.default_matmul_precision("highest"):

            def improve(state: State, index: jax.Array) -> tuple[State, None]:
                return generator_step(state, keys.at(keys.stream(key, "generator"), index), factor, constants), None

            def learn(state: State, index: jax.Array) -> tuple[State, tuple[jax.Array, jax.Array]]:
                return clone_step(state, keys.at(keys.stream(key, "clone"), index), factor, constants)

            state, _ = jax.lax.scan(improve, state, jnp.arange(options.generator_steps))
            state, (step_losses, agreement) = jax.lax.scan(learn, state, jnp.arange(options.clone_steps))
        count = jnp.float32(options.batch * options.clone_steps)
        return state, Metrics(jnp.mean(step_losses), jnp.sum(agreement), count)

    def predict(variables: Tree, raw: jax.Array) -> jax.Array:
        return jnp.asarray(clone.apply(clones_of(variables), prepare(raw), train=False))

    def view(variables: Tree, raw: jax.Array, row_keys: jax.Array) -> jax.Array:
        del row_keys
        return predict(variables, raw)

    def is_right(variables: Tree, raw: jax.Array, rows: jax.Array, constants: Tree) -> jax.Array:
        return jnp.argmax(predict(variables, raw), -1) == constants["answers"][rows]

    return Task(init, step, predict, view, is_right)


def _apply_gradients(
    state: State, name: str, gradients: Tree, model_state: Tree, train: Any, factor: jax.Array
) -> State:
    """Returns the state after one optimizer step of one of its two networks."""
    transform = recipe.make_optimizer(train, train.learning_rate * factor, train.weight_decay)
    updates, optimizer = transform.update(gradients, state.optimizer[name], state.params[name])
    params = jax.tree.map(lambda value, update: value + update, state.params[name], updates)
    return State(
        {**state.params, name: params},
        {**state.model_state, name: model_state},
        {**state.optimizer, name: optimizer},
    )


def job(
    extraction: Task,
    member_ids: Any,
    key: jax.Array,
    options: Options = PUBLISHED,
    *,
    victims: Tree = (),
    answers: Any = None,
    rows: Any = None,
) -> population.TrainingJob:
    """Builds the population of clones of V victims; train it with `population.train(job, data, epochs(options), ...)`.

    Clone v draws by its member id, so it is the same whichever others are trained with it.

    Args:
      extraction: from `task`.
      member_ids: [V] ids of the clones, which their random draws depend on.
      key: of the role.
      options: those of the task.
      victims: what `victims.network` reads, a tree with leading V; may be empty if all share one function as victim.
      answers: [V, N] int, each victim's class of every row of the data set; needed to keep the best clone.
      rows: [n] rows of the data set on which clones are compared with their victims after every epoch; None = the last
        clone is kept.

    Returns:
      A `population.TrainingJob`. Its Progress holds loss and agreement on generated inputs; `Carry.best_accuracy` is
      the fidelity of the best clone.

    Raises:
      ConfigError: a budget below one iteration. ShapeError: sizes that do not fit. DataError: rows without answers.

    Example:
      >>> import jax
      >>> from jaxunlearn.attacks.extraction import Options, job, task, victims
      >>> from jaxunlearn.models.architectures import dense, generator
      >>> network = dense.Mlp(2)
      >>> options = Options(budget=1000, batch=4, latents=3, width=2)
      >>> extraction = task(network, generator.build((6,), 2), victims.network(network), (6,), options)
      >>> job(extraction, [0, 1], jax.random.key(0), options).steps  # iterations per epoch
      35
    """
    option.check(options)
    ids = np.asarray(member_ids, np.int32).reshape(-1)
    for leaf in jax.tree.leaves(victims):
        if np.shape(leaf)[:1] != ids.shape:
            raise errors.ShapeError(f"victims contain an array of shape {np.shape(leaf)}; expected [{len(ids)}, ...].")
    constants: dict[str, Any] = {"victim": victims}
    held_out = None
    if rows is not None:
        if answers is None:
            raise errors.DataError("rows to judge the clones on are given without the victims' answers on them.")
        checks.shape("VN", {"V": len(ids)}, answers=answers)
        constants["answers"] = np.asarray(answers, np.int32)
        held_out = population.from_rows([[np.asarray(rows)]] * len(ids), options.batch)
    steps = np.zeros(option.iterations(options), np.int32)  # a stream of one row, as often as there are iterations
    return population.TrainingJob(
        task=extraction,
        streams={"steps": population.from_rows([[steps]] * len(ids), 1)},
        batches={"steps": 1},
        member_ids=ids,
        key=key,
        constants=constants,
        steps=len(steps),
        held_out=held_out,
        held_out_batch=options.batch,
        unshuffled=("steps",),
    )


def clones_of(variables: Tree) -> Tree:
    """Returns the clone's flax variables from those that training keeps (`population.kept_variables`).

    Example:
      >>> from jaxunlearn.attacks.extraction import clones_of
      >>> params = {"clone": {"bias": 1.0}, "generator": {}}
      >>> clones_of({"params": params, "clone": {"batch_stats": {}}, "generator": {}})
      {'params': {'bias': 1.0}, 'batch_stats': {}}
    """
    return trees.join_variables(variables["params"]["clone"], variables["clone"])


def fidelity(clone_logits: Any, victim_logits: Any, subset: np.ndarray | None = None) -> np.ndarray:
    """Computes the share of samples on which clone and victim give the same class, [...] of logits [..., N, C].

    Of a subset, [N] bool, if one is named; NaN if it is empty.

    Example:
      >>> from jaxunlearn.attacks.extraction import fidelity
      >>> float(fidelity([[1.0, 0.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, 2.0]]))
      0.5
    """
    clone, victim = np.asarray(clone_logits), np.asarray(victim_logits)
    agrees = clone.argmax(-1) == victim.argmax(-1)
    if subset is not None:
        agrees = agrees[..., subset]
    return np.asarray(agrees.mean(-1)) if agrees.shape[-1] else np.full(agrees.shape[:-1], np.nan)
