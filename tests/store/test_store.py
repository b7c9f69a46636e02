"""The run folder: results are neither lost nor mixed, and always verified."""

import fcntl
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
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
    for _ in range(2):
        store.claim(run, "shadows", path, facts, 1)
    assert store.read_claim(path)[0] == store.fingerprint_of(facts, 1)
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


def test_fingerprints_hash_arrays_of_jax_by_their_content():
    """The text of a large array leaves out its middle."""
    rows = np.arange(2000)
    other_rows = np.where((rows > 500) & (rows < 800), 0, rows)
    assert files.fingerprint(jnp.asarray(rows)) != files.fingerprint(jnp.asarray(other_rows))
    assert files.fingerprint([jnp.arange(3)]) == files.fingerprint([np.arange(3, dtype=np.int32)])
    mixed = {"rows": np.arange(5, dtype=np.int32), "mean": (0.5, np.float64(0.25)), "name": "digits",
             "flags": [True, None, np.bool_(False), np.int64(7), np.float32(0.1)], "empty": np.zeros((0, 2)),
             "nan": float("nan")}  # fmt: skip
    assert files.fingerprint(mixed) == "499cbd609e88d889"  # as in the run folders that exist
    assert files.fingerprint([np.float32(0.5), np.bool_(True), np.int64(3)]) == files.fingerprint([0.5, True, 3])


@pytest.mark.parametrize("value", [object(), {1, 2}, Path("rows.npz"), b"rows", np.array([object()])])
def test_fingerprints_refuse_what_they_cannot_hash(value):
    with pytest.raises(TypeError):
        files.fingerprint({"a": [value]})


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
    file = max(data_files(path), key=lambda file: file.stat().st_size)
    os.truncate(file, file.stat().st_size - 5)
    intact, damaged = chunks.finished(run.path("populations", "shadow"), "f")
    assert intact == [] and damaged == [path]


def test_a_flipped_byte_is_found_when_the_chunk_is_loaded(run):
    path = save(run)
    num_detected = 0
    for file in data_files(path):
        content = bytearray(file.read_bytes())
        original = bytes(content)
        content[len(content) // 2] ^= 0x01
        file.write_bytes(content)
        (chunk,), _ = chunks.finished(run.path("populations", "shadow"), "f")
        try:
            loaded = chunks.load(chunk, TREE)
        except errors.StoreError as error:
            assert "only this chunk is made anew" in str(error)
            num_detected += 1
        else:  # a byte that carries no value
            np.testing.assert_array_equal(loaded["diverged_at"], TREE["diverged_at"])
        file.write_bytes(original)
    assert num_detected > 0


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


def test_a_folder_of_the_users_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "mine.tmp-1").write_text("kept")
    with pytest.raises(errors.StoreError, match=r"not a run folder and not empty \(it contains 'mine.tmp-1'\)"):
        with store.open_run(str(tmp_path), overwrite=("all",)):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tmp-1"]


def test_overwrite_deletes_what_is_listed_as_ours_and_nothing_else(tmp_path):
    users_files = [
        "epsilon_evidence.npz",
        "evaluation.md",
        "logits/notes.txt",
        "report/mine.svg",
        "report/tables/mine.csv",
    ]
    outputs = ["epsilon.npz", "evaluation.json", "logits/shadow.npy", "report/report.html", "report/tables/scores.csv"]
    with store.open_run(str(tmp_path)) as run:
        for name in outputs:
            files.write_bytes(run.path(name), b"ours")
        run.output("report", "scores.svg").write_text("ours")
    for name in users_files:
        (tmp_path / name).write_text("the user's")
    with store.open_run(str(tmp_path), overwrite=("all",)):
        pass
    remaining = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert remaining == {*users_files, ".lock", "outputs.jsonl"}


def test_leftovers_are_deleted_beside_outputs_of_this_folder_only(tmp_path):
    with store.open_run(str(tmp_path / "outer")) as run:
        files.write_npz(run.path("scores.npz"), a=np.arange(3))
        run.output("report", "shadows.svg")
        for name in ("scores.tmp-1.npz", "report/shadows.12.part.svg"):
            run.path(name).parent.mkdir(exist_ok=True)
            run.path(name).write_text("left by a killed process")
        others_files = ["thesis.tmp-1", "report/drawing.12.part.svg", "inner/split.tmp-7.npz"]
        with store.open_run(str(run.path("inner"))) as inner:
            files.write_npz(inner.path("split.npz"), a=np.arange(3))
        for name in others_files:
            run.path(name).write_text("another's")
    with store.open_run(str(tmp_path / "outer")) as run:
        remaining = {str(path.relative_to(run.root)) for path in run.root.rglob("*") if ".tmp-" in path.name or
                ".part." in path.name}  # fmt: skip
    assert remaining == set(others_files)


def test_a_folder_of_an_earlier_version_is_used_but_nothing_of_it_deleted(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "done", "versions": {}, "settings": {}}')
    (tmp_path / "split.npz").write_text("old")
    with store.open_run(str(tmp_path)) as run:
        files.write_json(run.path("a.json"), {})
    with pytest.raises(errors.StoreError, match=r"has no outputs.jsonl, .*Delete by hand \(split.npz, split.json\)"):
        with store.open_run(str(tmp_path), overwrite=("split",)):
            pass
    assert (tmp_path / "split.npz").read_text() == "old"


@pytest.mark.parametrize("content", ['["../outside"]', '"../outside"\n"/etc/hosts"\n[1]\n{"a": 1}\n"cut', "\x00\x01"])
def test_a_damaged_list_of_outputs_deletes_nothing_outside(content, tmp_path):
    (tmp_path / "outside").write_text("the user's")
    with store.open_run(str(tmp_path / "run")):
        pass
    (tmp_path / "run" / "outputs.jsonl").write_text(content)
    with store.open_run(str(tmp_path / "run"), overwrite=("all",)):
        pass
    assert (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "workdir, message",
    [("a\0b", "it contains a NUL"), ("a" * 300, "the name is too long"), ("~nobody_x/a", "cannot be")],
)
def test_a_workdir_that_no_folder_can_have_is_one_message(workdir, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.StoreError, match=message):
        with store.open_run(workdir):
            pass


def test_a_folder_in_the_place_of_a_file_is_one_message(tmp_path):
    with store.open_run(str(tmp_path)) as run:
        run.path("logits", "shadow.npy").mkdir(parents=True)
        with pytest.raises(errors.StoreError, match=r"shadow.npy: a folder of that name is in the way"):
            open_logits(run)
        run.path("a.json").mkdir()
        run.path("a.npz").mkdir()
        run.path("a.npy").mkdir()
        for call in (lambda: files.read_json(run.path("a.json")), lambda: files.read_npz(run.path("a.npz")),
                     lambda: logits.read(run.path("a.npy")), lambda: files.write_json(run.path("a.json"), {}),
                     lambda: store.claim(run, "split", run.path("a.json"), {}, 1)):  # fmt: skip
            with pytest.raises(errors.StoreError, match=r"a.np.|a.json"):
                call()
    shutil.rmtree(tmp_path)
    (tmp_path / ".lock").mkdir(parents=True)
    with pytest.raises(errors.StoreError, match=r"\.lock: a folder of that name is in the way"):
        with store.open_run(str(tmp_path)):
            pass


@pytest.mark.parametrize(
    "content", ["[1]", "1", "null", '{"fingerprint": 3, "facts": []}', "{", "[" * 10**5, '{"a": 1}']
)
def test_a_manifest_of_the_wrong_kind_is_one_message(content, run):
    run.path("stage.json").write_text(content)
    with pytest.raises(errors.StoreError, match="stage.json is damaged .*Delete it and run the same command again"):
        store.claim(run, "shadows", run.path("stage.json"), {"seed": 1}, 1)


def test_an_altered_manifest_of_a_chunk_is_noticed(run):
    path = save(run)
    manifest = path / "manifest.json"
    before = manifest.read_text()
    for old, new in (('"fingerprint": "f"', '"fingerprint": "f",\n "diverged": {"1": 2}'), ("0,\n  1,", "0,\n  3,")):
        assert old in before
        manifest.write_text(before.replace(old, new))
        assert chunks.finished(run.path("populations", "shadow"), "f") == ([], [path])
    for content in ("[1]", '{"files": [], "member_ids": [1], "fingerprint": "f"}', "{"):
        manifest.write_text(content)
        assert chunks.inspect(path, "f") is None


def test_a_checkpoint_of_the_orbax_api_before_v1_is_still_read(run):
    import orbax.checkpoint as ocp

    path, ids = run.path("chunk"), np.arange(3)
    tree = {"a": np.random.default_rng(0).random((3, 4), np.float32), "b": {"c": np.array([1, 2, 3], np.int32)}}
    chunks.save(path, tree, ids, "f")
    shutil.rmtree(path / "arrays")
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(path / "arrays", args=ocp.args.StandardSave(tree))
    manifest = json.loads((path / "manifest.json").read_text())
    loaded = chunks.load(chunks.Chunk(path, ids, manifest), tree)
    jax.tree.map(np.testing.assert_array_equal, loaded, tree)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded))


@pytest.mark.parametrize("limit", ["EFBIG", "nested"])
def test_what_the_disk_refuses_inside_orbax_is_one_message(limit, run, monkeypatch):
    import resource

    from orbax.checkpoint import v1 as ocp

    tree = {"a": np.random.default_rng(0).random(50_000)}
    if limit == "nested":

        def refuse(*args, **kwargs):
            try:
                raise OSError(5, "Input/output error")
            except OSError as error:
                raise RuntimeError("orbax failed") from error

        monkeypatch.setattr(ocp, "save", refuse)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == "EFBIG":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(errors.StoreError, match="larger than the system allows|Input/output error; choose another"):
            chunks.save(run.path("chunk"), tree, np.arange(1), "f")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("place, byte", [(8, 0xFF), (61, ord("9")), (0, 0), (30, ord("("))])
def test_a_logits_file_with_an_altered_header_is_made_again(place, byte, run):
    fill(open_logits(run), [0, 1, 2])
    path = run.path("logits", "shadow.npy")
    content = bytearray(path.read_bytes())
    content[place] = byte
    path.write_bytes(content)
    reopened = open_logits(run)
    fill(reopened, [member for member in range(3) if member not in reopened.done])
    for member in range(3):
        np.testing.assert_array_equal(logits.read(path)[member], member + np.arange(20).reshape(5, 4))
    assert open_logits(run).damaged == ()
