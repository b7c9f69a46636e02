"""The attack on single rows: LiRA, before and after fine-tuning on retained rows alone.

Fine-tuning can bring back what unlearning only covered up (Source: OUR version 2, `rea_reminiscence_random.py`). Of
shadow models that trained on some of the rows the published online form is used, by medians; of shadow models that saw
none of them (as the audit's are) the offline form, in one direction.
"""

import numpy as np

from jaxunlearn.analyses.base import RecordedRun
from jaxunlearn.analyses.reminiscence.inputs import Attacked, Membership
from jaxunlearn.scores import signals
from jaxunlearn.scores.families import lira


def with_membership(run: RecordedRun, name: str, found: Attacked) -> Attacked:
    """Adds LiRA's answers where the forget sets are single rows; otherwise returns `found` as it is."""
    recovery = found.recovery
    if recovery is None or recovery.logits is None:
        return found
    before, shadows = run.logits(name), run.logits("shadow")
    sought = np.asarray(recovery.rows)
    columns, shadow_columns = (np.searchsorted(one.rows, sought) for one in (before, shadows))
    labels = np.asarray(run.labels)[sought]
    forget = np.asarray(run.split.forget)[recovery.sets][:, sought]
    held_out = np.isin(sought, np.asarray(run.split.test))
    return found._replace(membership=membership(
        np.asarray(before.values)[recovery.models][:, columns], recovery.logits, labels,
        np.asarray(shadows.values)[:, shadow_columns], shadows.member[:, shadow_columns], forget, held_out,
    ))  # fmt: skip


def membership(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, shadows: np.ndarray, saw: np.ndarray,
    forget: np.ndarray, held_out: np.ndarray,
) -> Membership:  # fmt: skip
    """Scores forgotten rows and held-out rows, forget set by forget set.

    Args:
      before: [R, n, C] logits of the models under attack.
      after: [R, n, C] of them after fine-tuning on retained rows.
      labels: [n] int.
      shadows: [S, n, C] logits of shadow models.
      saw: [S, n] bool, which rows a shadow model trained on.
      forget: [R, n] bool.
      held_out: [n] bool, rows that no model trained on.
    """
    odds = [np.asarray(signals.carlini_logit(one, labels), np.float64) for one in (before, after, shadows)]
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for number, mask in enumerate(forget):
        kept = mask | held_out
        is_online = bool((saw[:, kept].any(0) & ~saw[:, kept].all(0)).all())
        for column, values in zip(columns, odds[:2], strict=False):
            if is_online:
                scores = lira.median_online(values[number][kept, None], odds[2][:, kept, None], saw[:, kept])
            else:
                scores = np.asarray(lira.offline(values[number][kept], odds[2][:, kept]))
            column.append(np.asarray(scores, np.float64))
        columns[2].append(mask[kept])
        columns[3].append(np.full(int(kept.sum()), number))
    return Membership(*(np.concatenate(column) for column in columns))
