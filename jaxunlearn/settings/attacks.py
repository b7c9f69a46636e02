"""Groups of settings of attacks."""

import dataclasses

from jaxunlearn.settings.fields import MAX_MODELS, field


@dataclasses.dataclass(frozen=True)
class LeaksSettings:
    """What the original and the unlearned version of a model together reveal about a deleted record."""

    feature: str = field("sorted_diff", "the feature that is named first, chosen before any number is seen",
                         choices=("direct_diff", "sorted_diff", "direct_concat", "sorted_concat",
                                  "l2_distance"))  # fmt: skip
    features: tuple[str, ...] = field(("all",), "direct_diff, sorted_diff, direct_concat, sorted_concat, l2_distance, "
                                      "basic_mia (the original alone, always measured); all")  # fmt: skip
    attack: str = field("dt", "classifier of the attacker: tree, forest, logistic regression, network, or a threshold",
                        choices=("dt", "rf", "lr", "mlp", "threshold"))  # fmt: skip
    defence: str = field("none", "what is published of both versions' posteriors: all, the top_k largest, the "
                         "predicted label, or divided by a temperature",
                         choices=("none", "top_k", "label", "temperature"))  # fmt: skip
    top_k: int = field(3, "defence = top_k: entries that are kept", low=1)
    temperature: float = field(2.0, "defence = temperature: divisor of the logits", low=1e-3, high=1e6)
    confidence_level: float = field(0.95, "level of all intervals", low=0.5, high=0.9999)
    model: str = field("network", "run: what is trained: the network of model.*, exact logistic regression, decision "
                       "tree, random forest", choices=("network", "lr", "dt", "rf"), of_runs=True)  # fmt: skip
    sets: int = field(10, "run: original models on each side", low=2, high=MAX_MODELS, of_runs=True)
    set_size: int = field(2000, "run: training records of each", low=2, of_runs=True)
    deletions: int = field(20, "run: unlearned models per original", low=1, high=MAX_MODELS, of_runs=True)
    group: int = field(1, "run: records that are deleted together", low=1, of_runs=True)
    unlearning: str = field("scratch", "run: retraining from scratch, or SISA (one shard is retrained)",
                            choices=("scratch", "sisa"), of_runs=True)  # fmt: skip
    shards: int = field(10, "run: shards of SISA", low=2, high=MAX_MODELS, of_runs=True)
    update: str = field("deletion", "run: records are deleted, or as many fresh ones are added as well",
                        choices=("deletion", "online"), of_runs=True)  # fmt: skip
    case: str = field("in_out", "run: who is attacked: deleted records, records that stay (in_in), or one of the group "
                      "that was deleted some versions ago (multi_version)",
                      choices=("in_out", "in_in", "multi_version"), of_runs=True)  # fmt: skip
    coupling: str = field("independent", "run: networks of a set start from weights and batches of their own, or from "
                          "the same", choices=("independent", "shared"), of_runs=True)  # fmt: skip
    private: bool = field(False, "run: networks are trained by DP-SGD", of_runs=True)
    noise: float = field(1.2, "private: noise multiplier", low=0.0, of_runs=True)
    clip: float = field(1.0, "private: largest norm of the gradient of one record", low=1e-9, of_runs=True)
    delta: float = field(1e-5, "private: the delta of the accountant", low=1e-30, high=0.999, of_runs=True)
    shadow_from: str = field("", "run: the attack is trained on the shadow side of this run folder, or file of "
                             "posteriors: other data or models (transfer)", of_runs=True)  # fmt: skip
    repeats: int = field(1, "run: the whole experiment so many times, by other seeds", low=1, high=1000, of_runs=True)
    rows: str = field("all", "run: records are drawn from all rows of the data, or from its train pool",
                      choices=("all", "train"), of_runs=True)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ExtractSettings:
    """Data-free model extraction: copies of models from their answers alone (DFME)."""

    roles: tuple[str, ...] = field(("retrained", "unlearned"), "the models that are copied: original, retrained, "
                                   "unlearned:METHOD; unlearned = by every method of unlearn.methods")  # fmt: skip
    budget: int = field(50_000_000, "queries to one model, at most", low=1)
    inputs: str = field("pixels", "what a made-up input is: in the range of the data (pictures: from black to white; "
                        "rows: of each feature), normalised as the data are, or a network input in (-1, 1), as "
                        "published", choices=("pixels", "network"))  # fmt: skip
    keep: str = field("last", "the copy that is kept: of the last epoch, or the one that agrees with its model on most "
                      "held-out rows (published; an attacker has none)", choices=("last", "best"))  # fmt: skip
    batch: int = field(128, "inputs per step", low=2)
    iterations: int = field(50, "iterations per epoch, at most", low=1)
    generator_steps: int = field(1, "steps of the generator per iteration", low=1)
    clone_steps: int = field(5, "steps of the copy per iteration", low=1)
    directions: int = field(1, "random directions along which a gradient is estimated from answers", low=1)
    step_size: float = field(1e-3, "length of a step along them", low=1e-6, high=1.0)
    loss: str = field("l1", "disagreement: l1 of logits, or kl of probabilities", choices=("l1", "kl"))
    correction: str = field("mean", "l1: logits are log-probabilities less their mean, or as they are",
                            choices=("mean", "none"))  # fmt: skip
    clone_rate: float = field(0.02, "learning rate of the copy (SGD)", low=0.0)
    momentum: float = field(0.9, "of the copy's SGD", low=0.0, high=0.9999)
    weight_decay: float = field(5e-4, "of SGD", low=0.0)
    generator_rate: float = field(3e-4, "learning rate of the generator", low=0.0)
    generator_optimizer: str = field("adam", "optimizer of the generator", choices=("adam", "sgd"))
    schedule: str = field("step", "both rates times 0.3 at 10, 30 and 50 % of the epochs, along a cosine, or constant",
                          choices=("step", "cosine", "constant"))  # fmt: skip
    latents: int = field(100, "dimensions of the noise that the generator starts from", low=1)
    width: int = field(64, "of the generator", low=1)


@dataclasses.dataclass(frozen=True)
class ReminisceSettings:
    """The Reminiscence Attack: what was forgotten in name only is learned again too soon."""

    roles: tuple[str, ...] = field(("original", "retrained", "unlearned"), "run: models to attack; unlearned = "
                                   "by every method of unlearn.methods, or unlearned:METHOD",
                                   of_runs=True)  # fmt: skip
    target: str = field("models", "run: attack the models themselves, or clones that launch.extract made of their "
                        "answers", choices=("models", "extracted"), of_runs=True)  # fmt: skip
    share: float = field(0.2, "run: probes per trial, as a share of the rows of the forgotten class", low=1e-6,
                         high=1.0, of_runs=True)  # fmt: skip
    trials: int = field(40, "run: trials of the forgotten class, and of each unseen class", low=2, high=MAX_MODELS,
                        of_runs=True)  # fmt: skip
    retained: int = field(14, "run: retained rows that come along in each step (published: 14, of 100 classes 4)",
                          low=0, of_runs=True)  # fmt: skip
    steps: int = field(77, "run: at most so many steps; one probe is learned per step, once", low=1, of_runs=True)
    learning_rates: tuple[float, ...] = field((0.001, 0.005, 0.01), "learning rates of relearning; the attacker "
                                              "chooses among them on other forget sets' models")  # fmt: skip
    threshold: float = field(0.9, "accuracy at which a probe set counts as learned", low=0.0, high=1.0)
    break_ties: bool = field(True, "between trials of the same step the mean accuracy of the trajectory decides")
    carried: str = field("fresh", "run: every trial has weights and momentum of its own, or goes on with the momentum "
                         "(optimizer), or with everything, of the trial before it, as published",
                         choices=("fresh", "optimizer", "everything"), of_runs=True)  # fmt: skip
    recovery_epochs: int = field(3, "run: passes over retained rows alone, to see what comes back; 0 = none", low=0,
                                 of_runs=True)  # fmt: skip
    recovery_rate: float = field(0.01, "run: learning rate of these passes; as many passes follow at half of it",
                                 low=0.0, of_runs=True)  # fmt: skip
    recovery_batch: int = field(256, "run: rows per step of these passes", low=1, of_runs=True)
    confidence_level: float = field(0.95, "level of all intervals", low=0.5, high=0.9999)
