"""The zoo: each module a safetensors file with its card, a directory of them, and nothing else to go stale."""

from __future__ import annotations

from vimlight.zoo.card import FORMAT_VERSION, Card
from vimlight.zoo.zoo import Problem, Zoo

__all__ = ["FORMAT_VERSION", "Card", "Problem", "Zoo"]
