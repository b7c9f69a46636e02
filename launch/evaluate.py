"""Evaluates unlearned models: utility, membership attacks, distances, and conformal numbers (CR, MIACR).

    python -m launch.evaluate --config=configs/digits.py
    python -m launch.evaluate --config=configs/digits.py --seeds=1,2,3
    python -m launch.evaluate --config=configs/digits.py --config.unlearn.methods=finetune,finetune+conformal
    python -m launch.evaluate --logits=my.npz --out=DIR [--alphas=0.05,0.1] [--score=aps]

With a config, missing shadows, originals, exact retrains and unlearned models are trained first; finished ones are
reused. With --logits, an .npz (or folder of .npy) of outputs from any framework is enough: `calibration`, `forget`,
`test` and `retain` [n, c] (or [m, n, c] of m models) with `calibration_labels` ... [n]; optionally `retrained_forget`
... and `original_forget` ... for comparison (docs/own_outputs.md). Every setting of the evaluation is a flag:
--alphas=0.1 is --config.evaluate.alphas=0.1. Writes evaluation.json, tables, a figure and report/evaluation.html.
"""

import sys

from . import _analysis, _entry

VERB = _analysis.Verb(
    "evaluation", "evaluate", "logits", "evaluate", "an .npz (or folder of .npy) of logits, or of probabilities"
)
define, alone, command = _analysis.define(VERB), _analysis.alone(VERB), _analysis.command(VERB)
change = _analysis.change(VERB)

if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define, alone=alone, change=change))
