"""The small world of two models, written once."""

from __future__ import annotations

import pytest
import tiny_world


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Paths of caches and adapters by role."""
    return tiny_world.build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def open_world(world):
    """Returns a function that opens the world, less some roles."""
    from vimlight.transmiter.judging.roles import ADAPTER_ROLES, Inputs

    def open_some(*leave_out, **instead):
        paths = {role: path for role, path in {**world, **instead}.items() if role not in leave_out}
        caches = {role: path for role, path in paths.items() if role not in ADAPTER_ROLES}
        return Inputs.open(caches, {role: path for role, path in paths.items() if role in ADAPTER_ROLES})

    return open_some
