"""The commands of a zoo as tests call them."""

from __future__ import annotations

import pytest

from vimlight.commands.zoo import main
from vimlight.errors import VimlightError


def run(*arguments):
    """Runs `vimlight zoo` with these arguments, whatever their types."""
    main([str(argument) for argument in arguments])


def refusal(*arguments):
    """Returns the one line in which it refuses them."""
    with pytest.raises(VimlightError) as error:
        run(*arguments)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)
