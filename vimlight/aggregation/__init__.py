"""How K modules become one model: gates, routers, merged weights, parallel streams.

An aggregator is one file in this folder with an `Aggregate` subclass under `@AGGREGATORS.register(name)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.lazy import lazily

if TYPE_CHECKING:
    from vimlight.aggregation.base import Aggregate, Mixture, aggregate, list_aggregators
    from vimlight.aggregation.gated import GatedAggregate, StaticGates
    from vimlight.aggregation.registry import AGGREGATORS

__all__ = ["AGGREGATORS", "Aggregate", "GatedAggregate", "Mixture", "StaticGates", "aggregate", "list_aggregators"]

_PLACES = {
    "AGGREGATORS": "registry",
    "Aggregate": "base",
    "GatedAggregate": "gated",
    "Mixture": "base",
    "StaticGates": "gated",
    "aggregate": "base",
    "list_aggregators": "base",
}

__getattr__ = lazily(__name__, _PLACES)
