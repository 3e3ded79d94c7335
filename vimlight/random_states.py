"""The global random states of all processes of a run, so that what they draw goes on after an interruption."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from vimlight.errors import CheckpointError

__all__ = ["random_states", "restore_random_states"]


def random_states(device: torch.device) -> list[dict[str, Tensor]]:
    """Returns the states of torch's generators in every process, in the order of their ranks.

    All processes call it together.

    Args:
        device: Where this process trains.
    """
    own = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(device)
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return [own]
    states: list[dict[str, Tensor]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(states, own)
    return states


def restore_random_states(states: Sequence[dict[str, Tensor]], device: torch.device) -> None:
    """Sets the states of torch's generators; those of another number of processes are left alone.

    Args:
        states: What `random_states` returned.
        device: Where this process trains.

    Raises:
        CheckpointError: If they are no states.
    """
    together = distributed.is_initialized()
    world, rank = (distributed.get_world_size(), distributed.get_rank()) if together else (1, 0)
    if len(states) != world:
        return
    try:
        torch.set_rng_state(states[rank]["cpu"].cpu())
        if device.type == "cuda" and "cuda" in states[rank]:
            torch.cuda.set_rng_state(states[rank]["cuda"].cpu(), device)
    except (RuntimeError, TypeError, LookupError, AttributeError) as error:
        raise CheckpointError("the checkpoint's 'random' holds no states of generators; it was altered") from error
