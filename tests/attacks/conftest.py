import pathlib

import pytest

SHARED = pathlib.Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def shared():
    def find(name):
        if not (SHARED / name).exists():
            pytest.skip(f"{SHARED / name} is not here: real data are only on developers' machines")
        return str(SHARED / name)

    return find
