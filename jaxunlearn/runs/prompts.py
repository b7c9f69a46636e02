"""Prompts that try to hide what a language model has learned: tokens in front of a text, excluded from its loss.

| kind | in front of every text |
| --- | --- |
| refusal | a sentence that refuses, tokenized like the data set; a held-out text if the tokenizer is unknown |
| corrupted | the text itself, half of its tokens replaced by random ones |

The weights stay unchanged. Source: "IAM", Table 7 (`main_data_parallel_adv.py`: refusal, negative_label); the published
code corrupts characters.
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
LONGEST = 64  # tokens of the refusal
CORRUPTED = 0.5


def check(settings: Settings) -> None:
    """Raises a ConfigError for unknown roles `prompted:KIND`, or a network without positions for a prompt."""
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
    """Returns the experiment's task with every text behind a prompt of a kind."""
    dataset, settings = experiment.dataset, experiment.settings
    network = experiments.build_network(settings, dataset, experiment.mapping_policy.conv)
    evaluator = experiments.build_evaluator(settings, dataset, experiment.mapping_policy.conv)
    refusal = jnp.asarray(_refusal(settings, dataset))

    def predict(collections: population.task.Tree, inputs: jax.Array) -> jax.Array:
        prompt = (
            jnp.broadcast_to(refusal, (len(inputs), len(refusal)))
            if kind == "refusal"
            else _corrupt(inputs, dataset.vocabulary)
        )
        prompted_inputs = network.prepare(jnp.concatenate([prompt, inputs], 1), keys.root(0), False)
        logits = jnp.asarray(evaluator.apply(collections, prompted_inputs, train=False))
        return tokens.recorded(logits[:, prompt.shape[1] :], inputs)

    return experiment.task._replace(predict=predict)


def _refusal(settings: Settings, dataset: Dataset) -> np.ndarray:
    """Returns the token ids of the sentence that refuses."""
    if settings.data.name not in ("grammar", "texts"):  # a source with an unknown tokenizer
        held_out_text = np.asarray(dataset.inputs)[-1]
        return held_out_text[held_out_text >= 0][:LONGEST]
    sentence = REFUSAL
    if settings.data.name == "grammar":
        sentence = "".join(character for character in REFUSAL if character in grammar.CHARACTERS)
    return tokenizing.encoded(tokenizing.of(settings.data), sentence, "the refusal")[:LONGEST]


def _corrupt(inputs: jax.Array, vocabulary: int) -> jax.Array:
    """Returns texts [B, T] repeated over their padding, half of their tokens drawn anew from a key made of the text."""
    length = inputs.shape[1]

    def corrupted(text: jax.Array) -> jax.Array:
        checksum = jnp.sum(text.astype(jnp.uint32) * jnp.arange(1, length + 1, dtype=jnp.uint32))
        key = keys.at(keys.stream(keys.root(0), "corrupted"), checksum.astype(jnp.int32) & 0x7FFFFFFF)
        repeated = text[jnp.arange(length) % jnp.maximum(jnp.sum(text >= 0), 1)]
        random_tokens = jax.random.randint(keys.stream(key, "tokens"), (length,), 0, vocabulary)
        is_drawn = jax.random.bernoulli(keys.stream(key, "where"), CORRUPTED, (length,))
        return jnp.where(is_drawn, random_tokens, repeated)

    return jax.vmap(corrupted)(inputs)
