"""The audit on real data that a network overfits: Location-30."""

import pytest

from jaxunlearn import progress, settings, store
from jaxunlearn.analyses.audit import analysis
from jaxunlearn.analyses.audit.evidence import gather
from jaxunlearn.analyses.audit.verdicts import requests
from jaxunlearn.metrics.verdict.rows import FORGOTTEN, NOT_FORGOTTEN, SUPPRESSED
from jaxunlearn.runs import experiments
from jaxunlearn.runs.drivers import delivery, reading
from jaxunlearn.runs.verbs import targets
from tests import real_data

pytestmark = pytest.mark.slow
SCORES = ("iam_on", "iam_off", "lira_off", "confidence", "random")


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """The signals and the scoreboard of an audit of exact retraining: 12 shadows, 3 forget sets of 100."""
    config = settings.defaults()
    config.update_from_flattened_dict({
        "data.name": "location30", "data.path": real_data.find("location30.npz"), "split.shadow": 2000,
        "split.target": 1500, "split.forget.count": 3, "split.forget.size": 100, "model.name": "location",
        "train.learning_rate": 0.05, "train.epochs": 20, "shadows.count": 12, "shadows.ratio": 0.5,
        "targets.snapshots": 0, "targets.shadow_origin": False, "targets.population_in": False,
        "audit.scores": SCORES, "audit.group_size": 4, "audit.protocol": "binui",
    })  # fmt: skip
    experiment = experiments.prepare(settings.resolve(config))
    with store.open_run(str(tmp_path_factory.mktemp("location"))) as run:
        reporter = progress.Reporter(run.log)
        targets.run(run, reporter, experiment)
        recorded = reading.recorded_run(run, reporter, experiment, analysis.roles(experiment.settings), None)
        context = delivery.context(run, reporter)
        audit = analysis.analyse(gather.gather(recorded, context), experiment.settings, context)
    report = analysis.compose(audit, experiment.settings)
    decided = {role: report.arrays[f"scores/verdicts_{role}.npz"] for role in ("retrained", "original")}
    return audit.signals, audit.boards["retrained"], decided, report.sections, report.answer


def test_iam_tells_forgotten_from_retained_better_than_confidence(audited):
    _, board, _, _, _ = audited
    for name in ("iam_on", "iam_off"):
        assert board.table[name]["auc"].low > 0.6
        assert board.gains[name].low > 0
    random = board.table["random"]["auc"]
    assert random.low <= 0.5 <= random.high and random.high - random.low < 0.2


def test_forgotten_samples_score_below_retained_ones(audited):
    signals, board, _, _, _ = audited
    for name in ("iam_on", "iam_off", "lira_off", "confidence"):
        for values in board.scored.values[name]:
            assert values[signals.forgotten].mean() < values[~signals.forgotten].mean() - 0.05


def test_the_original_keeps_what_retraining_forgot(audited):
    _, _, decided, sections, answer = audited
    counts = {role: [int((verdicts["verdict"] == code).sum()) for code in (NOT_FORGOTTEN, FORGOTTEN, SUPPRESSED)]
              for role, verdicts in decided.items()}  # fmt: skip
    caught, forgotten, suppressed = counts["retrained"]
    assert caught <= 6 and suppressed <= 6 and forgotten >= 150
    assert counts["original"] == [300, 0, 0]
    assert answer.startswith("FORGOTTEN as a whole, in every request, as far as a model's answers can show it. ")
    assert "Exact retraining, audited as if it were a method. Of 300 requested rows " in answer
    assert f"Rows: {caught} NOT FORGOTTEN, {forgotten} FORGOTTEN, {suppressed} SUPPRESSED, " in answer
    assert {"verdicts", "requests", "rows", "trust", "binui_retrained"} <= {section.name for section in sections}


def test_requests_as_a_whole_are_told_from_the_original_by_statistics_too(audited):
    """What the statistics say of the original, were it not seen that nothing was changed."""
    signals = audited[0]
    retrained, original = (requests.judged(signals, role, 0.05, False).judgements for role in ("retrained", "original"))
    assert all(judgement.group.p_high <= 0.05 for judgement in original) and not any(
        judgement.group.p_in <= 0.05 for judgement in original
    )
    assert all(judgement.group.p_in <= 0.05 for judgement in retrained) and not any(
        judgement.group.p_high <= 0.05 for judgement in retrained
    )
    for judgements, left in ((original, 1), (retrained, 0)):
        assert [judgement.group.trace_left[0] for judgement in judgements] == pytest.approx([left] * 3, abs=0.25)
    promised = sum(judgement.power_forgotten for judgement in retrained)
    assert promised == pytest.approx(sum((judgement.codes == FORGOTTEN).sum() for judgement in retrained), rel=0.25)
    assert not any(judgement.group.is_suppressed or judgement.checks.refusal for judgement in (*retrained, *original))
