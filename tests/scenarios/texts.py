"""Verdicts on texts whose truth is known: losses of language models drawn from a hierarchical normal distribution.

    log-odds of text i under model m = ease_i + level_m + deviation_i e_im + gain_i [m was trained on i]

(of P = e^-loss). Text i is as easy for all models, differs by deviation_i between them, and gains where a model was
trained on it; that the gain does not depend on the ease is so on IAM's MUSE-News losses (fifths of the forgotten texts
by their loss after retraining: 1.45, 1.72, 1.70, 1.71, 1.56 of log-odds). `losses` adds in losses instead, so that hard
texts gain less log-odds than easy ones. The audited model and IN (the model before unlearning) keep the same texts
apart from the requested ones; OUT models and population texts are those of a careful user: models of other training
texts, texts as hard as the others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxunlearn import settings
from jaxunlearn.analyses.audit.evidence import text_gather
from jaxunlearn.analyses.audit.evidence.signals import GIVEN
from jaxunlearn.analyses.audit.verdicts import requests
from tests.scenarios import study, tables
from tests.scenarios.study import Facts

CONTAINED = ("untouched", "again")
MODELS = ("untouched", "again", "retrained", "half", "constant", "jittered", "refusal")
REFUSED = 6.0  # loss of a text that a filter hides
DRAWS = 100


class Texts(NamedTuple):
    """One world: numbers of texts and models, and the effect of training.

    Attributes:
      texts, asked, population, outs: numbers; `asked` of the texts are requested.
      gain: mean of what training takes off a loss; each text has its own, a gamma variate with half the mean as
        deviation.
      deviation: between models, of a typical text; each has its own, log-normal with a third as deviation.
      kind: random, hard or easy requested texts, by their difficulty; `harder`: twice as often from the harder half as
        from the other; `remembered`: those of the largest gain.
      losses: whether gains and deviations are of losses.
      unlike: deviation per text that all OUT models share: they are of another kind than the audited one.
    """

    texts: int = 300
    request_size: int = 60
    population: int = 300
    outs: int = 10
    gain: float = 0.3
    deviation: float = 0.08
    kind: str = "random"
    losses: bool = False
    unlike: float = 0.0


def draw(world: Texts, model: str, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws the arrays of one audit.

    Args:
      world: see `Texts`.
      model: of MODELS: the unchanged original with noise in its answers; a second training on everything; exact
        retraining; half of the request forgotten; requested texts answered by one constant, the mean
        loss, by that with noise, or by a refusal.
      seed: of everything.

    Returns:
      Arrays as --tokens takes them, and [F] bool which requested texts the model is trained on.
    """
    generator = np.random.default_rng(seed)
    count, total = world.texts, world.texts + world.population
    hard = generator.normal(2.5, 0.5, total)
    deviation = world.deviation * np.exp(generator.normal(0, 0.33, total))
    gain = generator.gamma(4.0, world.gain / 4, total) * (np.arange(total) < count)
    is_requested, weight = np.zeros(count, bool), 1 + (hard[:count] > np.median(hard[:count]))
    order = {
        "random": generator.permutation(count), "hard": np.argsort(-hard[:count]), "easy": np.argsort(hard[:count]),
        "remembered": np.argsort(-gain[:count]),
        "harder": np.argsort(generator.exponential(1.0, count) / weight),
    }[world.kind]  # fmt: skip
    is_requested[order[: world.request_size]] = True

    kind = world.unlike * generator.standard_normal(total)

    def losses(trained_on: np.ndarray, kind_scale: float = 0.0) -> np.ndarray:
        change = (
            kind_scale * kind
            + generator.normal(0, 0.05)
            + deviation * generator.standard_normal(total)
            + gain * trained_on
        )
        if world.losses:
            return np.maximum(hard - change, 0.01)
        return np.logaddexp(0, np.log(np.expm1(hard)) - change)  # the loss is log(1 + e^-odds)

    is_text, is_kept = np.arange(total) < count, np.arange(total) < count
    is_kept[:count] &= ~is_requested
    original, contained = losses(is_text), np.zeros(world.request_size, bool)
    if model == "untouched":
        audited, contained = original + generator.normal(0, 1e-3, total), ~contained
    elif model == "again":
        audited, contained = losses(is_text), ~contained
    elif model == "half":
        contained = generator.permutation(world.request_size) < world.request_size // 2
        is_kept[np.flatnonzero(is_requested)[contained]] = True
        audited = losses(is_kept)
    elif model == "retrained":
        audited = losses(is_kept)
    else:
        audited, contained = original + generator.normal(0, 0.01, total), ~contained
        replacement = REFUSED if model == "refusal" else audited[count:].mean()
        jitter = 0.3 * generator.standard_normal(world.request_size) * (model == "jittered")
        audited[:count][is_requested] = replacement + jitter
    audited = np.maximum(audited, 1e-4)
    out_losses = np.stack([losses(np.zeros(total, bool), 1.0) for _ in range(world.outs)])
    return {
        "nll_target": audited[:count], "nll_fit": original[:count], "nll_ref": out_losses[:, :count],
        "pop_nll_target": audited[count:], "pop_nll_fit": original[count:], "pop_nll_ref": out_losses[:, count:],
        "forgotten": is_requested,
    }, contained  # fmt: skip


def audited(world: Texts, model: str, seeds: Sequence[int], level: float = study.LEVEL) -> Facts:
    """Judges one model for every seed, as `launch.audit --tokens` does."""
    resolved = settings.resolve({"audit": {"fdr": level}})
    audits = []
    for seed in seeds:
        arrays, contained = draw(world, model, seed)
        verdicts = requests.judged(text_gather.from_arrays(arrays, resolved), GIVEN, level, False)
        audits.append(study.facts_of(verdicts.judgements[0], contained))
    return Facts(*map(np.asarray, zip(*audits, strict=True)))


# Label of a line of the table -> its world.
LINES = {
    "random": Texts(gain=0.8),
    "random, weak memory": Texts(gain=0.3),
    "random, 2 OUT models": Texts(gain=0.8, outs=2),
    "random, 60 population texts": Texts(gain=0.8, population=60),
    "random, OUT models of another kind": Texts(gain=0.8, unlike=0.3),
    "random, added in losses": Texts(gain=0.6, losses=True),
    "harder": Texts(gain=0.8, kind="harder"),
    "harder, added in losses": Texts(gain=0.6, kind="harder", losses=True),
    "hard": Texts(gain=0.8, kind="hard"),
    "hard, added in losses": Texts(gain=0.6, kind="hard", losses=True),
    "easy": Texts(gain=0.8, kind="easy"),
    "remembered": Texts(gain=0.8, kind="remembered"),
}


def table(draws: int = DRAWS) -> str:
    """Returns the table of all lines."""
    head = (
        "line", "NOT, untouched", "FORGOTTEN, exact retrains", "false FORGOTTEN, contained models",
        "false NOT, exact retrains", "p_high <= .05, forgotten texts", "half forgotten: false share of NOT",
        "half forgotten: false share of FORGOTTEN", "still in: untouched, exact", "gone: untouched, exact",
        "SUPPRESSED: constant, noisy, refusal", "false FORGOTTEN, noisy",
    )  # fmt: skip
    rows = []
    for label, world in LINES.items():
        facts = {model: audited(world, model, range(draws)) for model in MODELS}
        untouched, exact, half = facts["untouched"], facts["retrained"], facts["half"]
        replaced = [facts[model] for model in ("constant", "jittered", "refusal")]
        contained_facts = [facts[model] for model in CONTAINED]
        rows.append(tables.row(
            label,
            tables.number(study.mean(untouched.not_), 1),
            tables.number(study.mean(exact.forgotten), 1),
            f"{sum(model_facts.forgotten.sum() for model_facts in contained_facts)} of "
            f"{sum(model_facts.rows.sum() for model_facts in contained_facts):,}",
            f"{int(exact.not_.sum())} of {int(exact.rows.sum()):,}",
            tables.number(study.mean(exact.high), 3),
            tables.number(study.mean(study.false_share(half, "not")), 3),
            tables.number(study.mean(study.false_share(half, "forgotten")), 3),
            ", ".join(f"{model_facts.g_high.mean():.2f}" for model_facts in (untouched, exact)),
            ", ".join(f"{model_facts.g_in.mean():.2f}" for model_facts in (untouched, exact)),
            ", ".join(f"{model_facts.suppressed.mean():.1f}" for model_facts in replaced),
            f"{facts['jittered'].forgotten.mean():.1f}",
        ))  # fmt: skip
    return tables.table(head, rows)
