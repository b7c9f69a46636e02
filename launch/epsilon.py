"""Computes epsilon-hat and the challenge score of approaches from logits of many retrained and unlearned models.

    python -m launch.epsilon --data=DIR --all [--delta=0.05] [--metric=epsilon|challenge|both] [--out=DIR]
    python -m launch.epsilon --data=my.npz --approach=mine,theirs --samples=0,17
    python -m launch.epsilon --config=configs/forget_precision.py

--data is a folder in the published layout (logits_retain.npy, APPROACH/logits_unlearn.npy with the one-hot label in
slot 0, metrics.csv), or an .npz with `labels` [S], `retrained` [S, N, C] and one such array per approach; predictions
[S, N] for a regression (docs/own_outputs.md). With a config, many models of one request are trained and unlearned
first. Prints one table of all approaches: median, quartiles, infinite, undefined and negative samples, accuracies, with
intervals over models; proven bounds; the challenge score. Writes epsilon.npz (per sample, in input order), curves
against delta, histograms of single samples, report/epsilon.html. HIGHER epsilon = easier to tell apart = worse.
"""

import sys

from absl import flags

from jaxunlearn import errors

from . import _analysis, _entry

VERB = _analysis.Verb("epsilon", "epsilon", "data", "evaluate", "folder in the published layout, or an .npz")
alone, change = _analysis.alone(VERB), _analysis.change(VERB)


def define(values: flags.FlagValues) -> None:
    """Adds the flags of this verb."""
    _analysis.define(VERB)(values)
    flags.DEFINE_bool("all", False, "every approach (the default unless --approach names some)", flag_values=values)


def command(request: _entry.CommandLine) -> None:
    """Computes epsilon-hat, then prints the answer, the tables and the paths of the files."""
    if request.flags["all"].value and request.flags["approach"].value:
        raise errors.ConfigError("give --all or --approach, not both.")
    _analysis.command(VERB)(request)


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define, alone=alone, change=change))
