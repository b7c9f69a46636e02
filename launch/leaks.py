"""Measures what the original and the unlearned version of a model together reveal about a deleted record.

    python -m launch.leaks --posteriors=my.npz --out=DIR [--attack=rf] [--defence=label]
    python -m launch.leaks --config=configs/leaks_digits.py
    python -m launch.leaks --config=configs/leaks_adult.py --config.data.path=adult.csv [--unlearning=sisa] [--group=10]

An .npz (or folder of .npy) of posteriors from any framework is enough: `shadow_original`, `shadow_unlearned` [n, c] and
`shadow_deleted` [n] of models that the attacker trained, `target_original`, `target_unlearned` [t, c] and
`target_deleted` [t] of the models under attack; 1 = the record was trained on and then deleted, 0 = no model was
trained on it. `target_set` [t] identifies records that share a model (docs/own_outputs.md). With a config, originals
and unlearned models of both sides are trained first, as one population; finished ones are reused, and
leaks/posteriors.npz keeps their posteriors for other attacks. Prints AUC, accuracy, TPR at a low FPR, DegCount and
DegRate of every feature, compared with the attack on the original alone, with intervals over record sets. Writes
leaks.npz, leaks.csv, leaks.json and report/leaks.html. HIGHER = more is revealed = worse.
"""

import sys
from typing import Any

from . import _analysis, _entry

VERB = _analysis.Verb("leaks", "leaks", "posteriors", "leaks", "an .npz (or folder of .npy) of posteriors")
define, alone, change = _analysis.define(VERB), _analysis.alone(VERB), _analysis.change(VERB)


def run(*request: Any) -> str:
    """Trains originals and unlearned models of both sides and attacks them; see `leak_input.run`."""
    from jaxunlearn.runs.drivers import leak_input

    return leak_input.run(*request)


command = _analysis.command(VERB, run)

if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define, alone=alone, change=change))
