"""How K modules become one model: gates, routers, merged weights, parallel streams.

An aggregator is one file in this folder with an `Aggregate` subclass under `@AGGREGATORS.register(name)`.
"""

from __future__ import annotations

from vimlight.aggregation.base import AGGREGATORS, Aggregate, Mixture, aggregate, list_aggregators
from vimlight.aggregation.gated import GatedAggregate, StaticGates

__all__ = ["AGGREGATORS", "Aggregate", "GatedAggregate", "Mixture", "StaticGates", "aggregate", "list_aggregators"]
