"""A finished run of two unlearning methods on three forget sets, made once per process; tests modify copies of it."""

import atexit
import contextlib
import functools
import io
import shutil
import tempfile
from pathlib import Path

from launch import _entry, unlearn

# Tests that work in a copy pass these flags, and none of them again with another value.
FLAGS = ["--config=configs/digits.py:smoke", "--config.model.name=mlp", "--config.model.hidden=16,",
         "--config.split.forget.count=3", "--config.targets.snapshots=0"]  # fmt: skip
TWO_EPOCHS = "--config.unlearn.options=epochs=2"


def call(verb, *arguments):
    """Exit code of a launcher in this process."""
    hooks = {name: getattr(verb, name, None) for name in ("define", "alone", "change")}
    return _entry.main(verb.command, verb.__doc__, [verb.__name__, *arguments], **hooks)


def launch(verb, *arguments, workdir):
    """(exit code, stdout, stderr) of a launcher in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = call(verb, *arguments, f"--workdir={workdir}")
    return code, out.getvalue(), err.getvalue()


@functools.cache
def folder():
    """The run folder, for reading only."""
    path = Path(tempfile.mkdtemp(prefix="jaxunlearn-test-run-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    code, _, err = launch(unlearn, *FLAGS, TWO_EPOCHS, "--methods=finetune,ssd", workdir=path)
    assert code == 0, err
    return path
