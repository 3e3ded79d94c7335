"""Vision Middleware: a zoo of small modules on one frozen backbone, aggregated for few-shot tasks.

Names are imported at their first use, so that `import vimlight` is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.lazy import lazily

if TYPE_CHECKING:
    from vimlight.aggregation import aggregate, list_aggregators
    from vimlight.backbone import Backbone, create_backbone
    from vimlight.data import DownstreamDataModule, MidstreamDataModule
    from vimlight.deployment import Deployed, deploy, load_run
    from vimlight.deployment.multitask import MultiTask
    from vimlight.plugins import attach, create_plugin, list_plugins, widen
    from vimlight.plugins.merging import merge
    from vimlight.training.downstream import DownstreamModule
    from vimlight.training.midstream import MidstreamModule
    from vimlight.zoo import Zoo

__all__ = [
    "Backbone",
    "Deployed",
    "DownstreamDataModule",
    "DownstreamModule",
    "MidstreamDataModule",
    "MidstreamModule",
    "MultiTask",
    "Zoo",
    "__version__",
    "aggregate",
    "attach",
    "create_backbone",
    "create_plugin",
    "deploy",
    "list_aggregators",
    "list_plugins",
    "load_run",
    "merge",
    "widen",
]

__version__ = "0.1.0"

_ROOMS = {
    "Backbone": "backbone",
    "Deployed": "deployment",
    "DownstreamDataModule": "data",
    "DownstreamModule": "training.downstream",
    "MidstreamDataModule": "data",
    "MidstreamModule": "training.midstream",
    "MultiTask": "deployment.multitask",
    "Zoo": "zoo",
    "aggregate": "aggregation",
    "attach": "plugins",
    "create_backbone": "backbone",
    "create_plugin": "plugins",
    "deploy": "deployment",
    "list_aggregators": "aggregation",
    "list_plugins": "plugins",
    "load_run": "deployment",
    "merge": "plugins.merging",
    "widen": "plugins",
}

__getattr__ = lazily(__name__, _ROOMS)


def __dir__() -> list[str]:
    """Lists the public names."""
    return sorted(__all__)
