import pytest

from tests import real_data


@pytest.fixture
def shared():
    return real_data.find
