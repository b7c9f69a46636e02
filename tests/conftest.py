"""Two CPU devices for every test, set before jax is imported; one compilation cache for the whole session."""

import ctypes
import gc
import os
import sys
import tempfile

import pytest

# Compiling takes most of the tests' time and is not what they test: no optimisation, and the code generator that is
# three times as fast as XLA's fusion emitters (compilers without that option ignore it). The slow tests train for real,
# so they compile as users do; worker processes learn this from the environment.
AS_USERS = "JAXUNLEARN_TESTS_COMPILE_AS_USERS"
DEVICES = "--xla_force_host_platform_device_count=2"
QUICK = "--xla_cpu_parallel_codegen_split_count=1 --xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
if "slow" in sys.argv or os.environ.get(AS_USERS):
    os.environ[AS_USERS] = "1"
    os.environ.setdefault("XLA_FLAGS", DEVICES)
else:
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ.setdefault("XLA_FLAGS", f"{DEVICES} {QUICK}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Shared with subprocesses of the tests; a private folder, so that a stale cache of the user has no effect.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="jaxunlearn-test-cache-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# Workers get whole files, the slowest first: otherwise one worker finishes long after the others.
LONGEST_FIRST = ("launch", "unlearn", "runs", "models", "population", "scores")


def pytest_collection_modifyitems(items):
    def rank(item):
        folder = item.path.parent.name
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)


def pytest_collection_finish():
    """Freezes the objects that exist by now: otherwise garbage collection takes a tenth of all time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def programs():
    """Frees a file's compiled programs after its last test: otherwise a worker grows by gigabytes."""
    yield
    import jax

    jax.clear_caches()
    gc.collect()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc does not return small freed blocks by itself
    if give_back is not None:
        give_back(0)
