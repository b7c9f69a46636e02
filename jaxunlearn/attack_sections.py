"""The groups of settings of attacks; see `sections`."""

import dataclasses

from jaxunlearn.sections import MAX_MODELS, field


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
