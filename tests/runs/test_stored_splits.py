"""Splits of a run folder: stored once, made again as they were where the file is damaged."""

import numpy as np
import pytest

from jaxunlearn import errors, settings, store
from jaxunlearn.runs import experiments, roles, splits
from jaxunlearn.runs.roles import shadow


@pytest.fixture(scope="module")
def experiment():
    overrides = {"split": {"forget": {"count": 2}}, "shadows": {"count": 3}}
    return experiments.prepare(settings.resolve(overrides))


def obtained(run, experiment):
    split = splits.obtain(run, experiment)
    return split, roles.claim(run, shadow.describe(experiment, split)).membership


@pytest.mark.parametrize("content", [b"", b"no archive", "a folder", "other arrays"])
def test_damaged_files_are_drawn_again_as_they_were(content, experiment, tmp_path, capsys):
    with store.open_run(str(tmp_path)) as run:
        split, table = obtained(run, experiment)
        for path in (run.path("split.npz"), run.path("populations", "shadow", "membership.npz")):
            path.unlink()
            if content == "a folder":
                path.mkdir()
            elif content == "other arrays":
                np.savez(path, other=np.arange(3))
            else:
                path.write_bytes(content)
        again, same = obtained(run, experiment)
        np.testing.assert_array_equal(table, same)
        for name in ("shadow", "target", "population", "test", "forget"):
            np.testing.assert_array_equal(getattr(split, name), getattr(again, name))
        assert capsys.readouterr().err.count("is damaged; it is made again") == 2
        obtained(run, experiment)
        assert "damaged" not in capsys.readouterr().err


def test_a_damaged_manifest_is_one_message_and_the_folder_stays_usable(experiment, tmp_path):
    with store.open_run(str(tmp_path)) as run:
        obtained(run, experiment)
        run.path("split.json").write_text("[1]")
        with pytest.raises(errors.StoreError, match="split.json is damaged .*Delete it and run the same command again"):
            obtained(run, experiment)
        run.path("split.json").unlink()
        obtained(run, experiment)
