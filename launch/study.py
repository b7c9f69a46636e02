"""Runs a whole study: several stages and a table of their results.

    python -m launch.study --config=configs/digits.py --config.study.kind=methods
    python -m launch.study --config=configs/digits.py --config.study.kind=methods --config.unlearn.methods=ssd,scrub
    python -m launch.study --config=configs/digits.py --config.study.kind=conformal --config.unlearn.conformal.lam=0,1
    python -m launch.study --config=configs/forget_precision.py
    python -m launch.study --config=configs/digits.py --seeds=1,2,3
    python -m launch.study --config=configs/our_digits.py

methods: trains missing shadows, originals, exact retrains and all unlearned models, then prints one row per method:
accuracies on forgotten, retained and held-out samples, IAM-On's detection of single samples, seconds and retain-epoch
equivalents, with exact retraining as the reference row. Writes report/methods.html and tables.

conformal: retraining, fine-tuning, random labels and SalUn (or unlearn.methods) with the conformal-guided loss at
several weights, one population per method: accuracies, prediction sets, gain of UA. Writes report/conformal_loss.html.

epsilon: many retrained and unlearned models of one request (configs/forget_precision.py), epsilon-hat of every approach
with intervals over models, in both modes of BatchNorm. Writes report/epsilon.html, and logits in the published layout.

over_unlearning: every method of unlearn.methods without and with Over-Unlearning and Replay (METHOD+our), forgetting a
class (configs/our_digits.py): accuracies, the Reminiscence Attack against each, and the distribution of the forgotten
class among the others. Writes report/over_unlearning.html.
"""

import sys

from . import _entry, _seeds

STEMS = {"conformal": "conformal_loss"}  # study.kind -> name of its report, if it differs

define = _seeds.define


def command(request: _entry.CommandLine) -> None:
    """Plans or runs the study, once or once per seed, then prints its table and the paths of the files."""
    kind = request.settings.study.kind
    _seeds.run(request, request.settings, "study", f"report/{STEMS.get(kind, kind)}_findings.json", _single)


def _single(request: _entry.CommandLine) -> None:
    from jaxunlearn import progress
    from jaxunlearn.runs.drivers import run_input
    from jaxunlearn.runs.studies import STUDIES

    progress.show(run_input.run(STUDIES[request.settings.study.kind], *request.of_run()))


if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define))
