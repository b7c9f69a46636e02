"""Exact logistic regression, written for ONE model: a population of them is one program over one shared data set.

    standardise by the model's own records -> min over b of sum_i w_i log(1 + exp(-s_i z_i)) + ||b||^2 / (2 C)

one problem per class (one for two classes), the intercept not penalised, solved by Newton steps to the optimum. The
effect of one deleted record is smaller than the error of a loose solver (scikit-learn's default tolerance leaves 8.5e-5
in posteriors that a deletion moves by 1e-3). The optimum is unique: it depends only on the records.

Source: models.LR of Unlearning-Leaks. Differs from the published code: queries are standardised by the training
records (published: by themselves, which turns a single query into the zero vector, so that all answers are equal).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxunlearn.population import Batch, Metrics, State, StepInfo, Task

STEPS = 40
PRODUCTS = 60  # of conjugate gradients in one step
DIRECT = 128  # features up to which the matrix of second derivatives is cheaper than products with the rows
CERTAIN = 1e4  # log-odds of a class that is certain: its complement is exactly 0 after the softmax, and stays finite


class Logistic(NamedTuple):
    """A fitted model; P = 1 problem for two classes, else C.

    Attributes:
      coef: [P, F] in standardised units; intercept: [P].
      mean, scale: [F] of the model's own records.
    """

    coef: jax.Array
    intercept: jax.Array
    mean: jax.Array
    scale: jax.Array


def fit(inputs: jax.Array, labels: jax.Array, weights: jax.Array, num_classes: int, strength: float = 1.0) -> Logistic:
    """Fits one model exactly.

    Args:
      inputs: [n, F] float; computed in its type.
      labels: [n] int class indices.
      weights: [n] float >= 0; 0 = the record is not there.
      num_classes: C >= 2. A class without records gets posterior 0.
      strength: C of scikit-learn: weight of the records against the penalty.
    """
    inputs = inputs.reshape(inputs.shape[0], -1)
    weights = weights.astype(inputs.dtype)
    mean, scale = _standardisation(inputs, weights)
    design = jnp.concatenate([(inputs - mean) / scale, jnp.ones((len(inputs), 1), inputs.dtype)], 1)
    design = jnp.where(weights[:, None] > 0, design, 0.0)  # padding may hold anything
    classes = jnp.arange(1, 2) if num_classes == 2 else jnp.arange(num_classes)

    is_class = (labels[:, None] == classes).astype(inputs.dtype)  # [n, P]
    if design.shape[1] <= DIRECT:
        # One class after another: the second derivatives of all of them at once would leave the cache.
        solutions = jax.lax.map(lambda truth: _newton(design, truth[:, None], weights, strength)[:, 0], is_class.T)
    else:
        solutions = _newton(design, is_class, weights, strength).T
    class_weight = jnp.sum(weights[:, None] * is_class, 0)[:, None]
    certainty = jnp.zeros_like(solutions[0]).at[-1].set(CERTAIN)
    solutions = jnp.where(class_weight > 0, solutions, -certainty)
    solutions = jnp.where(class_weight < jnp.sum(weights), solutions, certainty)
    return Logistic(solutions[:, :-1], solutions[:, -1], mean, scale)


def _standardisation(inputs: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the weighted mean and standard deviation [F]; constant features get deviation 1."""
    is_present = weights[:, None] > 0
    total = jnp.sum(weights)
    mean = jnp.sum(jnp.where(is_present, inputs * weights[:, None], 0.0), 0) / total
    square = jnp.sum(jnp.where(is_present, weights[:, None] * (inputs - mean) ** 2, 0.0), 0) / total
    low = jnp.min(jnp.where(is_present, inputs, jnp.inf), 0)
    high = jnp.max(jnp.where(is_present, inputs, -jnp.inf), 0)
    # Compared on the values: the rounded mean of a constant can leave a deviation of 1e-8.
    is_constant = (low == high) | (square == 0)
    return jnp.where(is_constant, low, mean), jnp.where(is_constant, 1.0, jnp.sqrt(jnp.where(is_constant, 1.0, square)))


def _newton(design: jax.Array, is_class: jax.Array, weights: jax.Array, strength: float) -> jax.Array:
    """Returns the [D, P] optima of P binary problems from [n, D] rows and [n, P] truths.

    Steps that would raise an objective are shortened.
    """
    dtype = design.dtype
    penalty = jnp.ones((design.shape[1], 1), dtype).at[-1].set(0.0) / strength
    threshold = jnp.sqrt(jnp.finfo(dtype).eps)
    signs, weights = 1 - 2 * is_class, weights[:, None]
    solve = _exactly if design.shape[1] <= DIRECT else _by_conjugate_gradients

    def objective(solution: jax.Array, margins: jax.Array) -> jax.Array:
        return jnp.sum(weights * jax.nn.softplus(signs * margins), 0) + jnp.sum(penalty * solution**2, 0) / 2

    def step(carry: tuple) -> tuple:
        solution, margins, value, size, count = carry
        probability = jax.nn.sigmoid(margins)
        gradient = design.T @ (weights * (probability - is_class)) + penalty * solution
        move = solve(design, weights * probability * (1 - probability), penalty + 1e-9, gradient)
        move = jnp.where(size > threshold, move, 0.0)  # solved problems wait for the others
        margin_move = design @ move
        factors = jnp.asarray([1.0, 0.5, 0.25, 0.0625], dtype)
        objectives = jnp.stack(
            [objective(solution - factor * move, margins - factor * margin_move) for factor in factors]
        )
        tolerance = 8 * jnp.finfo(dtype).eps * jnp.abs(value)  # rounding is no rise
        index = jnp.argmax((objectives <= value + tolerance).at[-1].set(True), 0)
        # Convergence is quadratic: after a full step below sqrt(eps) only rounding errors remain.
        size = jnp.max(jnp.abs(move), 0) / (1 + jnp.max(jnp.abs(solution), 0))
        factor = factors[index]
        value = jnp.take_along_axis(objectives, index[None], 0)[0]
        return solution - factor * move, margins - factor * margin_move, value, size, count + 1

    def is_unsolved(carry: tuple) -> jax.Array:
        return jnp.any(carry[3] > threshold) & (carry[4] < STEPS)

    start, margins = jnp.zeros((design.shape[1], is_class.shape[1]), dtype), jnp.zeros_like(is_class)
    infinite = jnp.full(is_class.shape[1], jnp.inf, dtype)
    return jax.lax.while_loop(is_unsolved, step, (start, margins, objective(start, margins), infinite, 0))[0]


def _exactly(design: jax.Array, curvature: jax.Array, penalty: jax.Array, gradient: jax.Array) -> jax.Array:
    """Returns Newton's step [D, 1] of one problem, from its Hessian."""
    hessian = (design * curvature).T @ design + jnp.diag(penalty[:, 0])
    return jax.scipy.linalg.solve(hessian, gradient, assume_a="pos")


def _by_conjugate_gradients(
    design: jax.Array, curvature: jax.Array, penalty: jax.Array, gradient: jax.Array
) -> jax.Array:  # fmt: skip
    """Returns Newton's steps [D, P] of all problems to a relative error of 1e-3, by products instead of a Hessian."""
    diagonal = design.T**2 @ curvature + penalty

    def product(vector: jax.Array) -> jax.Array:
        return design.T @ (curvature * (design @ vector)) + penalty * vector

    def step(carry: tuple) -> tuple:
        move, residual, direction, size, count = carry
        image = product(direction)
        length = size / jnp.maximum(jnp.sum(direction * image, 0), tiny)
        move, residual = move + length * direction, residual - length * image
        scaled = residual / diagonal
        new_size = jnp.sum(residual * scaled, 0)
        return move, residual, scaled + new_size / jnp.maximum(size, tiny) * direction, new_size, count + 1

    tiny = jnp.finfo(design.dtype).tiny
    scaled = gradient / diagonal
    initial_size = jnp.sum(gradient * scaled, 0)

    def is_unsolved(carry: tuple) -> jax.Array:
        return jnp.any(carry[3] > 1e-6 * initial_size) & (carry[4] < PRODUCTS)

    return jax.lax.while_loop(is_unsolved, step, (jnp.zeros_like(gradient), gradient, scaled, initial_size, 0))[0]


def logits(model: Logistic, inputs: jax.Array) -> jax.Array:
    """Returns [B, C] logits whose softmax is the posterior: for more than two classes sigma_k / sum of all sigma.

    Example:
      >>> import numpy as np
      >>> from jaxunlearn.attacks.leaks.logistic import Logistic, logits
      >>> model = Logistic(np.array([[2.0]]), np.array([0.0]), mean=np.array([1.0]), scale=np.array([0.5]))
      >>> logits(model, np.array([[1.5]])).tolist()
      [[0.0, 2.0]]
    """
    values = inputs.reshape(inputs.shape[0], -1).astype(model.coef.dtype)
    scores = ((values - model.mean) / model.scale) @ model.coef.T + model.intercept
    if scores.shape[-1] == 1:
        return jnp.concatenate([jnp.zeros_like(scores), scores], -1)
    return jax.nn.log_sigmoid(scores)


def standardised_by(model: Logistic, queries: jax.Array) -> Logistic:
    """Returns the model that standardises queries [q, F] by their own mean and deviation, as the published code does.

    A single query becomes the zero vector, so every record gets the same answer.
    """
    std = jnp.std(queries, 0)
    return model._replace(mean=jnp.mean(queries, 0), scale=jnp.where(std > 0, std, 1.0))


def task(num_classes: int, example: jax.ShapeDtypeStruct) -> Task:
    """Returns the engine's task of one exact model: ONE step on all records of a member is its whole training.

    Args:
      num_classes: C.
      example: shape and dtype of one raw row. Inputs are standardised by the member's own records, so neither their
        scale nor a normalisation matters.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxunlearn.attacks.leaks import logistic
      >>> task = logistic.task(2, jax.ShapeDtypeStruct((3,), jnp.float32))
      >>> {name: leaf.shape for name, leaf in task.init(jax.random.key(0)).params.items()}
      {'coef': (1, 3), 'intercept': (1,), 'mean': (3,), 'scale': (3,)}
    """
    features = 1
    for size in example.shape:
        features *= size
    problems = 1 if num_classes == 2 else num_classes

    def init(key: jax.Array) -> State:
        del key  # the optimum is unique
        blank = Logistic(jnp.zeros((problems, features)), jnp.zeros(problems), jnp.zeros(features), jnp.ones(features))
        return State(blank._asdict(), {}, {})

    def step(
        state: State, batches: Mapping[str, Batch], step_info: StepInfo, key: jax.Array, constants: Any
    ) -> tuple[State, Metrics]:
        del step_info, key, constants
        batch = batches["train"]
        inputs = batch.inputs.astype(jnp.float32)
        model = fit(inputs, batch.labels, batch.weights, num_classes)
        answers = logits(model, inputs)
        log_probability = jax.nn.log_softmax(answers)[jnp.arange(len(inputs)), batch.labels]
        weight = jnp.sum(batch.weights)
        loss = -jnp.sum(jnp.where(batch.weights > 0, batch.weights * log_probability, 0.0)) / jnp.maximum(weight, 1e-9)
        correct = jnp.sum(jnp.where(jnp.argmax(answers, -1) == batch.labels, batch.weights, 0.0))
        return state._replace(params=model._asdict()), Metrics(loss, correct, weight)

    def predict(variables: Any, inputs: jax.Array) -> jax.Array:
        return logits(Logistic(**variables["params"]), inputs.astype(jnp.float32))

    def view(variables: Any, inputs: jax.Array, row_keys: jax.Array) -> jax.Array:
        del row_keys
        return predict(variables, inputs)

    return Task(init, step, predict, view)
