"""Git repositories that Flux reads, and its controllers beside the API server, the operator and the Redis of the loop's tests."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "loop"))

from fixtures import *  # noqa: F403, E402
from flux import Flux  # noqa: E402
from repository import Repositories  # noqa: E402


@pytest.fixture(scope="session")
def repositories(tmp_path_factory):
    served = Repositories(tmp_path_factory.mktemp("repositories"))
    yield served
    served.stop()


@pytest.fixture(scope="session")
def flux(control_plane, tmp_path_factory):
    flux = Flux(control_plane, tmp_path_factory.mktemp("flux"))
    yield flux
    flux.stop()
