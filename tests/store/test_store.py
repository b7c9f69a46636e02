"""The run folder: nothing is lost, mixed, or believed unchecked."""

import fcntl
import os
import shutil

import numpy as np
import pytest

from jaxunlearn import errors, store
from jaxunlearn.store import chunks, files, logits


@pytest.fixture
def run(tmp_path):
    with store.open_run(str(tmp_path / "run")) as opened:
        yield opened


def test_a_second_opening_of_a_locked_folder_stops_with_a_message(tmp_path):
    with store.open_run(str(tmp_path)):
        with pytest.raises(errors.StoreError, match=rf"in use by another process \(process {os.getpid()} on"):
            with store.open_run(str(tmp_path)):
                pass
    with store.open_run(str(tmp_path)):
        pass  # free again


def test_the_lock_dies_with_its_holder(tmp_path):
    with open(tmp_path / ".lock", "w") as stale:
        stale.write("process 1 on nowhere")
    with store.open_run(str(tmp_path)), open(tmp_path / ".lock") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("workdir", ["/dev/null/run", "/proc/run"])
def test_an_unwritable_folder_is_one_message(workdir):
    with pytest.raises(errors.StoreError, match=r"cannot write .*choose another --workdir"):
        with store.open_run(workdir):
            pass


def test_a_full_disk_stops_before_work(run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 10 * 2**20))
    files.require_space(run.root, 10 * 2**20)
    with pytest.raises(errors.StoreError, match=r"has 10.0 MiB free, but this run writes about 11.0 MiB"):
        files.require_space(run.root, 11 * 2**20)


def test_a_disk_that_fills_up_during_a_write_is_a_message(run, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.StoreError, match="the disk is full; free some space and run the same command again"):
        files.write_json(run.path("a.json"), {})
    assert not run.path("a.json").exists()


def test_claims_reuse_equal_facts_and_show_the_differing_ones(run):
    path = run.path("stage.json")
    facts = {"seed": 1, "train": {"epochs": 3, "milestones": (1, 2)}}
    first, known = store.claim(run, "shadows", path, facts, 1)
    assert not known
    assert store.claim(run, "shadows", path, facts, 1) == (first, True)
    with pytest.raises(errors.StoreError) as caught:
        store.claim(run, "shadows", path, {**facts, "train": {"epochs": 4, "milestones": (1, 2)}}, 1)
    text = str(caught.value)
    assert "train.epochs: stored 3, now 4" in text
    assert "seed" not in text
    assert "--workdir" in text and "--overwrite=shadows" in text
    with pytest.raises(errors.StoreError, match="stage_version: stored 1, now 2"):
        store.claim(run, "shadows", path, facts, 2)


def test_overwrite_deletes_its_stage_only(tmp_path):
    with store.open_run(str(tmp_path)) as run:
        files.write_npz(run.path("split.npz"), a=np.arange(3))
        files.write_npz(run.path("populations", "shadow", "x.npz"), a=np.arange(3))
    with store.open_run(str(tmp_path), overwrite=("shadows",)) as run:
        assert run.path("split.npz").exists()
        assert not run.path("populations", "shadow").exists()
    with pytest.raises(errors.ConfigError, match="unknown stage for --overwrite 'shadow'. Did you mean 'shadows'"):
        with store.open_run(str(tmp_path), overwrite=("shadow",)):
            pass


def test_fingerprints_see_every_fact_and_not_the_order_of_names():
    base = {"a": 1, "b": {"c": np.arange(4), "d": (1, 2)}}
    same = {"b": {"d": [1, 2], "c": np.arange(4)}, "a": 1}
    assert files.fingerprint(base) == files.fingerprint(same)
    changed = [
        {**base, "a": 2},
        {**base, "b": {"c": np.arange(4).astype(np.int32), "d": (1, 2)}},
        {**base, "b": {"c": np.arange(4).reshape(2, 2), "d": (1, 2)}},
        {**base, "b": {"c": np.arange(4), "d": (12,)}},
        {"a": 1, "b.c": np.arange(4), "d": (1, 2)},
    ]
    prints = [files.fingerprint(facts) for facts in changed]
    assert len({files.fingerprint(base), *prints}) == 6


TREE = {"variables": {"params": {"Dense_0": {"kernel": np.arange(12.0, dtype=np.float32).reshape(3, 4)}}},
        "diverged_at": np.array([-1, 5, -1], np.int32)}  # fmt: skip


def save(run, ids=(0, 1, 2)):
    path = run.path("populations", "shadow", f"chunk_{chunks.chunk_name(np.array(ids))}")
    chunks.save(path, TREE, np.array(ids), "f")
    return path


def test_chunks_come_back_as_they_were(run):
    save(run)
    (chunk,), damaged = chunks.finished(run.path("populations", "shadow"), "f")
    assert damaged == [] and chunk.member_ids.tolist() == [0, 1, 2]
    loaded = chunks.load(chunk, TREE)
    np.testing.assert_array_equal(
        loaded["variables"]["params"]["Dense_0"]["kernel"], TREE["variables"]["params"]["Dense_0"]["kernel"]
    )
    assert loaded["diverged_at"].dtype == np.int32


def data_files(path):
    return [file for file in (path / "arrays").rglob("*") if file.is_file() and file.stat().st_size > 20]


def test_a_truncated_chunk_is_listed_as_damaged(run):
    path = save(run)
    victim = max(data_files(path), key=lambda file: file.stat().st_size)
    os.truncate(victim, victim.stat().st_size - 5)
    whole, damaged = chunks.finished(run.path("populations", "shadow"), "f")
    assert whole == [] and damaged == [path]


def test_a_flipped_byte_is_found_when_the_chunk_is_loaded(run):
    path = save(run)
    found = 0
    for victim in data_files(path):
        content = bytearray(victim.read_bytes())
        original = bytes(content)
        content[len(content) // 2] ^= 0x01
        victim.write_bytes(content)
        (chunk,), _ = chunks.finished(run.path("populations", "shadow"), "f")
        try:
            loaded = chunks.load(chunk, TREE)
        except errors.StoreError as error:
            assert "only this chunk is made anew" in str(error)
            found += 1
        else:  # a byte that carries no value
            np.testing.assert_array_equal(loaded["diverged_at"], TREE["diverged_at"])
        victim.write_bytes(original)
    assert found > 0


def test_a_chunk_of_other_settings_is_never_used(run):
    path = save(run)
    assert chunks.finished(run.path("populations", "shadow"), "other") == ([], [path])


def test_leftovers_of_a_killed_write_are_removed_on_opening(tmp_path):
    with store.open_run(str(tmp_path)) as run:
        path = save(run)
        shutil.copytree(path, path.with_name(path.name + ".tmp-999"))
    with store.open_run(str(tmp_path)) as run:
        assert [p.name for p in run.path("populations", "shadow").iterdir()] == [path.name]


def test_only_the_newest_rolling_checkpoint_is_kept(run):
    role = run.path("populations", "shadow")
    for epoch in (3, 12):
        chunks.save_partial(role, TREE, np.arange(3), "f", epoch)
    (newest,), damaged = chunks.partial(role, "f")
    assert newest.manifest["epoch"] == 12 and damaged == []
    assert len(list(role.glob("partial_*/epoch_*"))) == 1
    chunks.drop_partial(role, np.arange(3))
    assert chunks.partial(role, "f") == ([], [])


def test_id_sets_with_equal_ends_do_not_share_a_folder():
    names = {chunks.chunk_name(np.array(ids)) for ids in ([0, 1, 2, 3], [0, 3], [0, 1, 3], [0, 2, 3])}
    assert len(names) == 4


def open_logits(run, members=3, dtype="float32", fingerprint="f"):
    return logits.open_file(run.path("logits", "shadow.npy"), members, 5, 4, dtype, fingerprint)


def fill(file, members):
    for member in members:
        file.values[member] = member + np.arange(20).reshape(5, 4)
    logits.commit(file, np.array(members))


def test_logits_are_kept_member_by_member(run):
    fill(open_logits(run), [0, 2])
    again = open_logits(run)
    assert sorted(again.done) == [0, 2] and again.damaged == ()
    fill(again, [1])
    stored = logits.read(run.path("logits", "shadow.npy"))
    np.testing.assert_array_equal(stored[1], 1 + np.arange(20).reshape(5, 4))


def test_a_growing_population_keeps_its_logits(run):
    fill(open_logits(run), [0, 1, 2])
    larger = open_logits(run, members=6)
    assert larger.values.shape == (6, 5, 4) and sorted(larger.done) == [0, 1, 2]
    np.testing.assert_array_equal(larger.values[2], 2 + np.arange(20).reshape(5, 4))
    smaller = open_logits(run, members=2)
    assert smaller.values.shape == (6, 5, 4)


def test_a_truncated_logits_file_loses_exactly_the_members_it_lost(run):
    fill(open_logits(run), [0, 1, 2])
    path = run.path("logits", "shadow.npy")
    os.truncate(path, path.stat().st_size - 100)  # member 2 and the end of member 1
    again = open_logits(run)
    assert sorted(again.done) == [0] and again.damaged == (1, 2)
    fill(again, [1, 2])
    assert open_logits(run).damaged == ()


def test_an_altered_logits_file_is_noticed(run):
    fill(open_logits(run), [0, 1, 2])
    values = np.load(run.path("logits", "shadow.npy"), mmap_mode="r+")
    values[1, 2, 3] += 1
    values.flush()
    assert open_logits(run).damaged == (1,)


def test_logits_of_another_population_or_type_are_not_reused(run):
    fill(open_logits(run), [0, 1, 2])
    assert open_logits(run, fingerprint="g").done == {}
    fill(open_logits(run), [0])
    assert open_logits(run, dtype="float16").done == {}


def test_a_damaged_npz_or_json_is_a_message(run):
    path = run.path("split.npz")
    files.write_npz(path, a=np.arange(1000))
    os.truncate(path, 2000)
    with pytest.raises(errors.StoreError, match="split.npz is damaged .*Delete it and run the same command again"):
        files.read_npz(path)
    run.path("x.json").write_text("{")
    with pytest.raises(errors.StoreError, match="x.json is damaged"):
        files.read_json(run.path("x.json"))
