"""Aggregators by name; to list the names imports none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.registry import Registry

if TYPE_CHECKING:
    from vimlight.aggregation.base import Aggregate

__all__ = ["AGGREGATORS"]

AGGREGATORS: Registry[type[Aggregate]] = Registry(
    "aggregator", "vimlight.aggregation", "AGGREGATORS", group="vimlight.aggregators"
)
