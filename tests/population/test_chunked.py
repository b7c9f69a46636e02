"""The restartable loop: progress and time."""

import io

import numpy as np

from jaxunlearn import progress
from jaxunlearn.population import chunked


def test_compiling_between_chunks_is_no_work(monkeypatch):
    """Two chunks of two members and four epochs of 10 s; each compiles for 100 s first."""
    now, compiled, events = [0.0], [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def epochs(ids, checkpoint):
        now[0] += 100
        compiled[0] += 100
        for epoch in range(1, 5):
            now[0] += 10
            yield chunked.EpochReport(epoch, np.ones(2), np.ones(2), dict, None)

    training = chunked.ChunkedTraining(
        num_epochs=4, fit=lambda ids: 2, epochs=epochs, load=lambda ids: None, save=lambda *arguments: None,
        on_epoch_end=lambda *arguments: None, finish=lambda *arguments: None,
        steps=lambda ids, epochs: len(ids) * epochs, unit="steps",
        compile_seconds=lambda: compiled[0], checkpoint_seconds=1e9,
    )  # fmt: skip
    reporter = progress.Reporter(events.append, io.StringIO(), every_seconds=0)
    reporter.begin("training")
    queue = [(np.arange(4), False)]
    cost = chunked.train(training, queue, reporter)
    assert len(queue) == 1  # the caller's list stays as it is
    assert [event["done"] for event in events] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [event["rate"] for event in events] == [0.2] * 8
    assert "1 min 00 s left of this stage" in reporter.out.getvalue().splitlines()[1]
    assert cost.compile_seconds == 200 and cost.seconds == 80
