"""The Reminiscence Attack: what a model was made to forget, it learns again faster than what it never saw.

unlearned models -> trials (`plan`) -> trajectories of one population (`running.relearn`)
-> steps and scores (`scoring`) -> a decision fitted on shadow trials (`deciding`)

Class-wise, a trial relearns a probe set of one class under the forget output; probes of classes that no model ever saw
are the negatives. Sample-wise, a model is fine-tuned on retained rows (`reminiscence.reminisce`), then asked by LiRA.
Ranking numbers (AUC, TPR at 5 % FPR) are those of `metrics.roc` on `scoring.scores`.

What trains is imported by its own name (`running`, `reminiscence`), so that judging trials needs no model code.

Source: "Reminiscence Attack on Residuals", ICCV 2025, repositories OUR (`rea.py`) and Over-unlearningAndReplay.
"""

from jaxunlearn.attacks.relearning.deciding import Decision, JudgedTrials, choose, decide, judge
from jaxunlearn.attacks.relearning.plan import Trials, crossed, draw
from jaxunlearn.attacks.relearning.scoring import first_steps, scores, smoothed

__all__ = [
    "Decision",
    "Judged",
    "Trials",
    "choose",
    "crossed",
    "decide",
    "draw",
    "first_steps",
    "judge",
    "scores",
    "smoothed",
]
