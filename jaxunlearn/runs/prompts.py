"""Prompts that are to hide what a language model knows: text in front of a text, its own loss not counted.

| kind | in front of every text |
| --- | --- |
| refusal | one sentence that refuses, in the data set's own tokenizer; of data sets from elsewhere a held-out text |
| corrupted | the text itself, half of its tokens drawn anew |

The weights stay as they are. Source: "IAM", Table 7 (`main_data_parallel_adv.py`: refusal, negative_label); there the
copy is corrupted by characters.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import errors, keys, population
from jaxunlearn.analyses.base import PROMPTED
from jaxunlearn.data.language import grammar, tokenizing
from jaxunlearn.records import Dataset
from jaxunlearn.runs import experiments
from jaxunlearn.scores import tokens
from jaxunlearn.settings import Settings

KINDS = ("refusal", "corrupted")
REFUSAL = "I cannot answer questions about this text. "
LONGEST = 64  # of the refusal, in tokens
CORRUPTED = 0.5


def check(settings: Settings) -> None:
    """Refuses audited roles `prompted:KIND` that are not there, or a network without positions for a prompt.

    Raises:
      ConfigError: see above.
    """
    for name in settings.audit.unlearned:
        if not name.startswith(PROMPTED):
            continue
        if name.removeprefix(PROMPTED) not in KINDS:
            raise errors.unknown("role", name, tuple(PROMPTED + kind for kind in KINDS))
        if settings.model.name == "lm":
            raise errors.ConfigError(
                f"{name} puts a prompt in front of every text, but 'lm' has learned positions for texts without one. "
                "Choose model.name = 'lm_rotary'."
            )


def task(experiment: experiments.Experiment, kind: str) -> population.Task:
    """The experiment's task, answering for every text behind a prompt of a kind."""
    dataset, settings = experiment.dataset, experiment.settings
    net = experiments.build_network(settings, dataset, experiment.mapping_policy.conv)
    evaluator = experiments.build_evaluator(settings, dataset, experiment.mapping_policy.conv)
    refusal = jnp.asarray(_refusal(settings, dataset))

    def predict(collections: population.task.Tree, inputs: jax.Array) -> jax.Array:
        front = (
            jnp.broadcast_to(refusal, (len(inputs), len(refusal)))
            if kind == "refusal"
            else _corrupted(inputs, dataset.vocabulary)
        )
        shown = net.prepare(jnp.concatenate([front, inputs], 1), keys.root(0), False)
        logits = jnp.asarray(evaluator.apply(collections, shown, train=False))
        return tokens.recorded(logits[:, front.shape[1] :], inputs)

    return experiment.task._replace(predict=predict)


def _refusal(settings: Settings, dataset: Dataset) -> np.ndarray:
    """Returns the token ids of the sentence that refuses."""
    if settings.data.name not in ("grammar", "texts"):  # a source whose tokenizer is not known
        last = np.asarray(dataset.inputs)[-1]
        return last[last >= 0][:LONGEST]
    sentence = REFUSAL
    if settings.data.name == "grammar":
        sentence = "".join(character for character in REFUSAL if character in grammar.CHARACTERS)
    return tokenizing.encoded(tokenizing.of(settings.data), sentence, "the refusal")[:LONGEST]


def _corrupted(inputs: jax.Array, vocabulary: int) -> jax.Array:
    """Texts [B, T] repeated over their padding, half of their tokens drawn anew; the draw follows from the text."""
    length = inputs.shape[1]

    def one(text: jax.Array) -> jax.Array:
        mark = jnp.sum(text.astype(jnp.uint32) * jnp.arange(1, length + 1, dtype=jnp.uint32))
        key = keys.at(keys.stream(keys.root(0), "corrupted"), mark.astype(jnp.int32) & 0x7FFFFFFF)
        own = text[jnp.arange(length) % jnp.maximum(jnp.sum(text >= 0), 1)]
        drawn = jax.random.randint(keys.stream(key, "tokens"), (length,), 0, vocabulary)
        is_drawn = jax.random.bernoulli(keys.stream(key, "where"), CORRUPTED, (length,))
        return jnp.where(is_drawn, drawn, own)

    return jax.vmap(one)(inputs)
