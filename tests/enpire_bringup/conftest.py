"""The shipped station and task, read once."""

import pytest

from enpire_bringup.station import load_station
from enpire_bringup.task import load_task


@pytest.fixture(scope='session')
def station():
    return load_station('yam_bimanual_sim')


@pytest.fixture(scope='session')
def task():
    return load_task('push_t')
