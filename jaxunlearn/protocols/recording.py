"""Recording logits of a role: every finished member on every row of the split, clean or augmented, into one file."""

import numpy as np

from jaxunlearn import errors, keys, population, progress, store, trees
from jaxunlearn.protocols import roles, workbench
from jaxunlearn.store import chunks, logits

CLEAN = "clean"


def file_name(role: str, view: str) -> str:
    """`shadow.npy` for the clean view, `shadow.augmented_0.npy` for others."""
    return f"{role}.npy" if view == CLEAN else f"{role}.{view}.npy"


def record(
    run: store.Run,
    reporter: progress.Reporter,
    bench: workbench.Workbench,
    role: roles.Role,
    rows: np.ndarray,
    view: str = CLEAN,
) -> tuple[np.ndarray, bool]:
    """Computes the logits of all members that the file does not hold yet.

    Args:
      run: the run folder.
      reporter: for messages.
      bench: the workbench.
      role: whose members `roles.train_missing` has trained.
      rows: [N] int32 rows of the data set.
      view: clean, or augmented_K.

    Returns:
      ([M_file, N, C] memory map whose line i belongs to member i, whether all chunks could be read). After False the
      damaged chunks are gone: train the missing members and record again.
    """
    engine = bench.settings.engine
    fingerprint = store.files.fingerprint({"role": role.fingerprint, "rows": rows, "view": view})
    path = run.path("logits", file_name(role.name, view))
    members = int(role.member_ids.max()) + 1
    file = logits.open_file(
        path, members, len(rows), bench.dataset.num_classes, engine.logits_dtype, fingerprint
    )  # fmt: skip
    if file.damaged:
        reporter.say(f"{path} is damaged for {len(file.damaged)} member(s); their logits are computed again")
    whole, _ = chunks.finished(run.path("populations", role.name), role.fingerprint)
    key = None if view == CLEAN else keys.stream(keys.root(bench.settings.seed), view)
    intact = True
    for chunk in whole:
        todo = [i for i, member in enumerate(chunk.member_ids.tolist()) if member not in file.done and member < members]
        if not todo:
            continue
        try:
            variables = roles.load_chunk(bench, role, chunk)["variables"]
        except errors.StoreError as error:
            reporter.say(f"{error}\nIts members are trained again.")
            store.files.remove(chunk.path)
            intact = False
            continue
        reporter.say(f"recording logits of {len(todo)} {role.name} member(s) on {len(rows)} rows ({view})")
        ids = chunk.member_ids[todo]
        picked = trees.take(variables, np.asarray(todo))
        lifting = workbench.lifting(bench, len(todo))
        inputs = workbench.resident(bench).inputs
        blocks = population.predict(bench.task, picked, inputs, rows, lifting, view_key=key)
        for where, values in blocks:
            # One assignment per member: ids of a chunk need not be consecutive.
            for line, member in zip(values, ids, strict=True):
                file.values[member, where] = line
        logits.commit(file, ids)
    return file.values, intact
