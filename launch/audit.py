"""Audits forgetting: every score, its quality against exact retraining, and a verdict for every single sample.

    python -m launch.audit --config=configs/digits.py
    python -m launch.audit --config=configs/digits.py --seeds=1,2,3
    python -m launch.audit --config=configs/digits.py --protocol=shadow_sweep
    python -m launch.audit --config=configs/cifar10.py --protocol=shift --shadow_runs=runs/cinic10
    python -m launch.audit --evidence=my.npz --out=DIR [--dataset=cifar10] [--scores=iam_on,lira_off]
    python -m launch.audit --tokens=tokens.npz --out=DIR [--scores=lm_iam,lm_min_k]

With a config, missing shadows, originals and retrains are trained first; finished ones are reused. With --evidence, an
.npz of logits from any framework is enough: `unlearned` [n, c], `labels` [n], and any of `original` [n, c], `shadows`
[s, n, c], `forgotten` [n], `retrained` [n, c], `ids` [n] ... (docs/own_outputs.md). --tokens takes log-probabilities
per token, or losses per text, of language models. Every setting of the audit is a flag: --fdr=0.1 is
--config.audit.fdr=0.1. Writes scores, findings.json, tables, figures and report/report.html.
"""

import sys

from . import _analysis, _entry

VERB = _analysis.Verb(
    "audit",
    "audit",
    "evidence",
    "scores",
    "an .npz (or folder of .npy) of logits, or of probabilities",
    (("tokens", "an .npz (or folder of .npy, or of published loss files) of language models' log-probabilities"),),
)
define, alone, command = _analysis.define(VERB), _analysis.alone(VERB), _analysis.command(VERB)
change = _analysis.change(VERB)

if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define, alone=alone, change=change))
