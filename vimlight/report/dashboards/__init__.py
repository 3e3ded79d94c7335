"""What a run shows beyond its curves, on every logger alike: figures, tables, texts, artifacts and best scores.

A new logger is one new file here: a `Dashboard` under `@DASHBOARDS.register(name)` that says which class of loggers it
stands for; whatever a run shows goes there from then on. A logger that nobody stands for has files in the directory of
the run, as Lightning's CSV logger has.
"""

from __future__ import annotations

from vimlight.report.dashboards.base import DASHBOARDS, Artifact, Dashboard, Picture, Table
from vimlight.report.dashboards.every import Dashboards

__all__ = ["DASHBOARDS", "Artifact", "Dashboard", "Dashboards", "Picture", "Table"]
