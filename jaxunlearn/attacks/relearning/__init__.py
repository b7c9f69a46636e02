"""The Reminiscence Attack: a model relearns what it was made to forget faster than what it never saw.

unlearned models -> trials (`plan`) -> trajectories of one population (`running.relearn`)
-> steps and scores (`scoring`) -> a decision fitted on shadow trials (`deciding`)

Class-wise, a trial relearns a probe set of one class under the forget label; probes of classes that no model ever saw
are the negatives. Sample-wise, a model is fine-tuned on retained rows (`reminiscence.reminisce`), then attacked by
LiRA. Ranking metrics (AUC, TPR at 5 % FPR) are those of `metrics.roc` on `scoring.scores`.

Modules that train (`running`, `reminiscence`) are imported by their own names, so that judging trials needs no model
code.

Source: "Reminiscence Attack on Residuals", ICCV 2025, repositories OUR (`rea.py`) and Over-unlearningAndReplay.
"""

from jaxunlearn.attacks.relearning.deciding import Decision, JudgedTrials, choose, decide, judge
from jaxunlearn.attacks.relearning.plan import TrialPlan, crossed, draw
from jaxunlearn.attacks.relearning.scoring import first_steps, scores

__all__ = [
    "Decision",
    "JudgedTrials",
    "TrialPlan",
    "choose",
    "crossed",
    "decide",
    "draw",
    "first_steps",
    "judge",
    "scores",
]
