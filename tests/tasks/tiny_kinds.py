"""One drawn data set for each kind of task, and settings that keep heads small."""

from __future__ import annotations

from vimlight.data.scenes import SCENE_TASKS
from vimlight.tasks import TASKS, list_tasks

SIZE = 32
# Settings that keep heads small.
SMALL = {
    "segmentation": {"width": 8},
    "depth": {"width": 8},
    "detection": {"width": 32, "levels": 2, "convs": 1, "score_threshold": 0.001},
}
# Kinds and settings beyond the plain ones.
VARIANTS = {
    "segmentation, linear": {"kind": "segmentation", "head": "linear"},
    "depth, linear": {"kind": "depth", "head": "linear"},
    "depth, l1": {"kind": "depth", "width": 8, "loss": "l1", "scale": "linear"},
    "ordinal, cumulative": {"kind": "ordinal", "loss": "cumulative"},
    "multilabel, asymmetric": {"kind": "multilabel", "loss": "asymmetric"},
    "regression, huber": {"kind": "regression", "loss": "huber"},
}
SETTINGS = {**{kind: {"kind": kind, **SMALL.get(kind, {})} for kind in list_tasks()}, **VARIANTS}


def scene_for(kind: str, stage: str = "midstream") -> str:
    """Returns the drawn task whose targets a kind learns from."""
    layout = TASKS[kind].layout.name
    fitting = [n for n, t in SCENE_TASKS.items() if t.stage == stage and TASKS[t.kind].layout.name == layout]
    own = [name for name in fitting if SCENE_TASKS[name].kind == kind]
    # Few images are to show every class.
    return min(own or fitting, key=lambda name: len(SCENE_TASKS[name].class_names))
