"""Settings of attacks."""

import dataclasses

from jaxunlearn.settings.fields import MAX_MODELS, field


@dataclasses.dataclass(frozen=True)
class LeaksSettings:
    """Unlearning-Leaks: what the original and the unlearned version of a model reveal about a deleted record."""

    feature: str = field("sorted_diff", "primary feature, fixed before any number is seen",
                         choices=("direct_diff", "sorted_diff", "direct_concat", "sorted_concat",
                                  "l2_distance"))  # fmt: skip
    features: tuple[str, ...] = field(("all",), "features to evaluate: direct_diff, sorted_diff, direct_concat, "
                                      "sorted_concat, l2_distance, basic_mia (the original alone, always measured); "
                                      "all = every one")  # fmt: skip
    attack: str = field("dt", "classifier of the attacker: decision tree, random forest, logistic regression, network, "
                        "or a threshold", choices=("dt", "rf", "lr", "mlp", "threshold"))  # fmt: skip
    defence: str = field("none", "what the owner publishes from both posteriors: everything, the top_k largest "
                         "entries, the predicted label, or everything at a temperature",
                         choices=("none", "top_k", "label", "temperature"))  # fmt: skip
    top_k: int = field(3, "defence = top_k: number of entries published", low=1)
    temperature: float = field(2.0, "defence = temperature: divisor of the logits", low=1e-3, high=1e6)
    confidence_level: float = field(0.95, "confidence level of all intervals", low=0.5, high=0.9999)
    model: str = field("network", "run: model to train: the network of model.*, exact logistic regression, decision "
                       "tree, or random forest", choices=("network", "lr", "dt", "rf"), of_runs=True)  # fmt: skip
    sets: int = field(10, "run: original models on each side", low=2, high=MAX_MODELS, of_runs=True)
    set_size: int = field(2000, "run: training records of each original model", low=2, of_runs=True)
    deletions: int = field(20, "run: unlearned models per original", low=1, high=MAX_MODELS, of_runs=True)
    group: int = field(1, "run: number of records deleted together", low=1, of_runs=True)
    unlearning: str = field("scratch", "run: retraining from scratch, or SISA (retrains one shard)",
                            choices=("scratch", "sisa"), of_runs=True)  # fmt: skip
    shards: int = field(10, "run: number of SISA shards", low=2, high=MAX_MODELS, of_runs=True)
    update: str = field("deletion", "run: delete records, or also add as many fresh ones (online)",
                        choices=("deletion", "online"), of_runs=True)  # fmt: skip
    attacked_records: str = field("in_out", "run: records under attack: deleted ones, remaining ones (in_in), or "
                                  "one of the group that was deleted some versions ago (multi_version)",
                                  choices=("in_out", "in_in", "multi_version"), of_runs=True)  # fmt: skip
    coupling: str = field("independent", "run: networks of a set start from independent weights and batches, or share "
                          "them", choices=("independent", "shared"), of_runs=True)  # fmt: skip
    private: bool = field(False, "run: train networks by DP-SGD", of_runs=True)
    noise: float = field(1.2, "private: noise multiplier", low=0.0, of_runs=True)
    clip: float = field(1.0, "private: maximum gradient norm of one record", low=1e-9, of_runs=True)
    delta: float = field(1e-5, "private: delta of the privacy accountant", low=1e-30, high=0.999, of_runs=True)
    shadow_from: str = field("", "run: train the attack on the shadow side of this run folder, or file of posteriors: "
                             "other data or models (transfer)", of_runs=True)  # fmt: skip
    repeats: int = field(1, "run: repetitions of the whole experiment with different seeds", low=1, high=1000,
                         of_runs=True)  # fmt: skip
    rows: str = field("all", "run: draw records from all rows of the data, or from the train pool only",
                      choices=("all", "train"), of_runs=True)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ExtractSettings:
    """Data-free model extraction (DFME): clones of models from their answers alone."""

    roles: tuple[str, ...] = field(("retrained", "unlearned"), "models to clone: original, retrained, "
                                   "unlearned:METHOD; unlearned = by every method of unlearn.methods")  # fmt: skip
    budget: int = field(50_000_000, "maximum number of queries to one model", low=1)
    inputs: str = field("pixels", "generated inputs: in the range of the data (pictures: from black to white; rows: of "
                        "each feature), normalised like the data, or network inputs in (-1, 1), as published",
                        choices=("pixels", "network"))  # fmt: skip
    keep: str = field("last", "clone to keep: that of the last epoch, or the one that agrees with its model on the "
                      "most held-out rows (published; real attackers have none)", choices=("last", "best"))  # fmt: skip
    batch: int = field(128, "inputs per step", low=2)
    iterations: int = field(50, "maximum number of iterations per epoch", low=1)
    generator_steps: int = field(1, "steps of the generator per iteration", low=1)
    clone_steps: int = field(5, "steps of the clone per iteration", low=1)
    directions: int = field(1, "random directions along which gradients are estimated from answers", low=1)
    step_size: float = field(1e-3, "step length along these directions", low=1e-6, high=1.0)
    loss: str = field("l1", "disagreement of clone and model: l1 of logits, or kl of probabilities",
                      choices=("l1", "kl"))  # fmt: skip
    correction: str = field("mean", "l1: subtract the mean of log-probabilities to recover logits, or use them as they "
                            "are", choices=("mean", "none"))  # fmt: skip
    clone_rate: float = field(0.02, "learning rate of the clone (SGD)", low=0.0)
    momentum: float = field(0.9, "momentum of the clone's SGD", low=0.0, high=0.9999)
    weight_decay: float = field(5e-4, "weight decay of SGD", low=0.0)
    generator_rate: float = field(3e-4, "learning rate of the generator", low=0.0)
    generator_optimizer: str = field("adam", "optimizer of the generator", choices=("adam", "sgd"))
    schedule: str = field("step", "schedule of both rates: times 0.3 at 10, 30 and 50 % of the epochs, cosine, or "
                          "constant", choices=("step", "cosine", "constant"))  # fmt: skip
    latents: int = field(100, "dimensions of the generator's noise", low=1)
    width: int = field(64, "base width of the generator", low=1)


@dataclasses.dataclass(frozen=True)
class ReminisceSettings:
    """The Reminiscence Attack: what was forgotten only superficially is relearned suspiciously fast."""

    roles: tuple[str, ...] = field(("original", "retrained", "unlearned"), "run: models to attack; unlearned = by "
                                   "every method of unlearn.methods, or unlearned:METHOD", of_runs=True)  # fmt: skip
    target: str = field("models", "run: attack the models themselves, or the clones that launch.extract made of them",
                        choices=("models", "extracted"), of_runs=True)  # fmt: skip
    probe_fraction: float = field(0.2, "run: probes per trial, as a fraction of the rows of the forgotten class",
                                  low=1e-6, high=1.0, of_runs=True)  # fmt: skip
    trials: int = field(40, "run: trials of the forgotten class, and of each unseen class", low=2, high=MAX_MODELS,
                        of_runs=True)  # fmt: skip
    retained: int = field(14, "run: retained rows added to each step (published: 14; 4 with 100 classes)", low=0,
                          of_runs=True)  # fmt: skip
    steps: int = field(77, "run: maximum number of steps; each step learns one new probe", low=1, of_runs=True)
    learning_rates: tuple[float, ...] = field((0.001, 0.005, 0.01), "learning rates of relearning; the attacker "
                                              "selects one on other forget sets' models")  # fmt: skip
    threshold: float = field(0.9, "accuracy at which a probe set counts as learned", low=0.0, high=1.0)
    break_ties: bool = field(True, "break ties between trials of equal steps by the mean accuracy of their "
                             "trajectories")  # fmt: skip
    inherited_state: str = field("fresh", "run: what each trial inherits from the one before it: nothing (fresh), the "
                                 "momentum (optimizer), or everything, as published",
                                 choices=("fresh", "optimizer", "everything"), of_runs=True)  # fmt: skip
    recovery_epochs: int = field(3, "run: epochs of fine-tuning on retained rows only, to see what recovers; 0 = none",
                                 low=0, of_runs=True)  # fmt: skip
    recovery_rate: float = field(0.01, "run: learning rate of this fine-tuning; as many epochs follow at half of it",
                                 low=0.0, of_runs=True)  # fmt: skip
    recovery_batch: int = field(256, "run: batch size of this fine-tuning", low=1, of_runs=True)
    confidence_level: float = field(0.95, "confidence level of all intervals", low=0.5, high=0.9999)
