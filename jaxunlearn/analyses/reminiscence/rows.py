"""The attack on single rows: LiRA, before and after fine-tuning on retained rows alone.

Fine-tuning can bring back what unlearning only covered up (Source: OUR version 2, `rea_reminiscence_random.py`). With
shadow models that trained on some of the rows the published online form is used, with medians; with shadow models that
saw none of them (as in the audit) the one-sided offline form.
"""

import numpy as np

from jaxunlearn.analyses.base import RecordedRun
from jaxunlearn.analyses.reminiscence.inputs import Membership, RoleTrials
from jaxunlearn.scores import signals
from jaxunlearn.scores.families import lira


def with_membership(run: RecordedRun, name: str, attacked: RoleTrials) -> RoleTrials:
    """Adds LiRA scores if the forget sets are single rows; otherwise returns `attacked` unchanged."""
    recovery = attacked.recovery
    if recovery is None or recovery.logits is None:
        return attacked
    before, shadows = run.logits(name), run.logits("shadow")
    rows = np.asarray(recovery.rows)
    columns, shadow_columns = (recorded.positions(rows) for recorded in (before, shadows))
    labels = np.asarray(run.labels)[rows]
    forget = np.asarray(run.split.forget)[recovery.sets][:, rows]
    held_out = np.isin(rows, np.asarray(run.split.test))
    return attacked._replace(membership=membership(
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
    odds = [np.asarray(signals.carlini_logit(logits, labels), np.float64) for logits in (before, after, shadows)]
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for set_index, mask in enumerate(forget):
        is_used = mask | held_out
        is_online = bool((saw[:, is_used].any(0) & ~saw[:, is_used].all(0)).all())
        for column, values in zip(columns, odds[:2], strict=False):
            if is_online:
                scores = lira.median_online(
                    values[set_index][is_used, None], odds[2][:, is_used, None], saw[:, is_used]
                )
            else:
                scores = np.asarray(lira.offline(values[set_index][is_used], odds[2][:, is_used]))
            column.append(np.asarray(scores, np.float64))
        columns[2].append(mask[is_used])
        columns[3].append(np.full(int(is_used.sum()), set_index))
    return Membership(*(np.concatenate(column) for column in columns))
