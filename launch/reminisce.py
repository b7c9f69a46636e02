"""Attacks models that forgot a class: measures whether they relearn it too quickly (Reminiscence Attack).

    python -m launch.reminisce --config=configs/our_digits.py
    python -m launch.reminisce --config=configs/our_digits.py --config.unlearn.methods=ssd,ssd+our
    python -m launch.reminisce --config=configs/our_digits.py --target=extracted     copies made by launch.extract
    python -m launch.reminisce --trajectories=my.npz --out=DIR

With a config, missing originals, exact retrains and unlearned models are trained first; finished ones are reused. No
model sees the classes of `data.ood_classes`, which serve as a baseline. Forget sets of single rows are attacked by LiRA
before and after fine-tuning on retained rows. With --trajectories, an .npz (or folder of .npy) of relearning trials
from any framework is enough: `accuracy` [t, s] of each trial on its probes after every step, and `forgotten` [t];
optionally `set` [t], the forget set of the trial's model, `rate` [t], its learning rate, and `model` [t], its method.
The others are compared with the method `retrained`, which takes at least 6 forget sets. Prints balanced accuracy, AUC
and TPR with intervals over forget sets, and writes reminiscence.json, reminiscence.npz and report/reminiscence.html.
HIGHER = more is left.
"""

import sys

from . import _analysis, _entry

VERB = _analysis.Verb(
    "reminiscence", "reminisce", "trajectories", "", "an .npz (or folder of .npy) of relearning trials"
)
define, alone, command = _analysis.define(VERB), _analysis.alone(VERB), _analysis.command(VERB)
change = _analysis.change(VERB)

if __name__ == "__main__":
    sys.exit(_entry.main(command, __doc__ or "", define=define, alone=alone, change=change))
