"""The entries of `METHODS` for language models."""

from jaxunlearn.unlearn.base.entries import MethodEntry
from jaxunlearn.unlearn.language import constrained, language_methods, preferences

_BOTH = ("forget", "retain", "tokens")
_FORGET = ("forget", "tokens")

METHODS: dict[str, MethodEntry] = {
    "grad_diff": MethodEntry(
        language_methods.grad_diff, "climbs the loss of the forget set, with a retain term",
        "Liu et al. 2022; TOFU", _BOTH,
    ),
    "npo": MethodEntry(
        preferences.npo, "texts become less likely than under the original, up to a point", "Zhang et al. 2024",
        (*_BOTH, "statistics"),
    ),
    "simnpo": MethodEntry(
        preferences.simnpo, "NPO on the mean loss per token, without the original", "Fan et al. 2024", _BOTH
    ),
    "dpo": MethodEntry(
        preferences.dpo, "prefers another answer, \"I don't know\" or random tokens, to the true one",
        "Rafailov et al. 2023; TOFU", (*_BOTH, "statistics"),
    ),
    "altpo": MethodEntry(
        preferences.altpo, "prefers an answer sampled from the original to the true one", "Mekala et al. 2024",
        (*_BOTH, "statistics"),
    ),
    "rmu": MethodEntry(
        language_methods.rmu, "drives hidden activations of the forget set to a random direction", "Li et al. 2024",
        _BOTH,
    ),
    "undial": MethodEntry(
        language_methods.undial, "learns the original's outputs with the true token's logit lowered",
        "Dong et al. 2024", _FORGET,
    ),
    "wga": MethodEntry(
        language_methods.wga, "climbs the loss of likely tokens most, with a retain term",
        "Wang et al. 2025", _BOTH,
    ),
    "satimp": MethodEntry(
        language_methods.satimp, "climbs with weights of saturation and importance, with a retain term",
        "Yang et al. 2025", _BOTH,
    ),
    "ce_u": MethodEntry(
        language_methods.ce_u, "learns the model's own outputs with the true token left out", "Yang 2025", _FORGET
    ),
    "pdu": MethodEntry(
        constrained.pdu, "makes all tokens equally likely while the retain loss stays below a bound",
        "Entesari et al. 2025", _BOTH,
    ),
}  # fmt: skip
