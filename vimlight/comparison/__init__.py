"""Comparisons: any methods on any tasks, at equal readout and equal head, as a plan in YAML says.

A `Plan` (`entries`, read and checked by `reading`) names backbones, tasks and methods (`catalogue`). A `Study` lists
its jobs and what each depends on; `running` hands those that are still to be done to an executor, where modules are
trained (`modules`) and methods fitted (`fits`), through the same `MidstreamModule` and `DownstreamModule` that a user
trains with. Every result is a file of its own; `results` gathers them into tables and a page. Nothing is chosen on test
images but in the row that is called hindsight.
"""
