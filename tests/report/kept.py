"""What each logger kept of a run, read back from what it left on disk; a reader for every dashboard."""

from __future__ import annotations

import csv
import json
from functools import cached_property
from pathlib import Path

from wandb_record import read_run

__all__ = ["READERS", "loggers_in"]


def loggers_in(root):
    """One logger of each kind, which write below a folder."""
    from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

    from vimlight.report.dashboards.mlflow import allow_file_store

    allow_file_store()
    return [
        CSVLogger(root / "csv", name=""),
        WandbLogger(save_dir=root / "wandb", offline=True, project="tiny"),
        TensorBoardLogger(root / "tensorboard", name=""),
        MLFlowLogger("tiny", tracking_uri=f"file:{root / 'mlflow'}"),
    ]


class Csv:
    def __init__(self, root):
        (self.folder,) = (root / "csv").glob("version_*")

    def curve(self, key):
        with (self.folder / "metrics.csv").open(newline="") as file:
            return [(int(row["step"]), float(row[key])) for row in csv.DictReader(file) if row[key]]

    def has_figure(self, key):
        return (self.folder / f"{key.replace('/', '_')}.png").read_bytes().startswith(b"\x89PNG")

    def columns(self, key):
        return (self.folder / f"{key.replace('/', '_')}.csv").read_text().splitlines()[0].split(",")

    def text(self, key):
        return (self.folder / key).read_text()

    def artifacts(self, used):
        listed = json.loads((self.folder / "artifacts.json").read_text())
        return {each["name"]: each["about"].get("sha256") for each in listed if each["used"] == used}

    def number(self, key):
        return json.loads((self.folder / "summary.json").read_text())[key]


class TensorBoard:
    @cached_property
    def events(self):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        (folder,) = (self.root / "tensorboard").glob("version_*")
        return EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0, "scalars": 0}).Reload()

    def __init__(self, root):
        self.root = root

    def curve(self, key):
        return [(event.step, event.value) for event in self.events.Scalars(key)]

    def has_figure(self, key):
        return self.events.Images(key)[-1].encoded_image_string.startswith(b"\x89PNG")

    def columns(self, key):
        return [cell.strip() for cell in self.text(key).splitlines()[0].strip("| ").split("|")]

    def text(self, key):
        return self.events.Tensors(f"{key}/text_summary")[-1].tensor_proto.string_val[0].decode()

    def artifacts(self, used):
        start = f"artifacts/{'used' if used else 'made'}/"
        names = [tag.removesuffix("/text_summary") for tag in self.events.Tags()["tensors"] if tag.startswith(start)]
        return {name.removeprefix(start): json.loads(self.text(name))["about"].get("sha256") for name in names}

    def number(self, key):
        return self.curve(key)[-1][1]


class MLflow:
    def __init__(self, root):
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(f"file:{root / 'mlflow'}")
        (self.run,) = self.client.search_runs([self.client.get_experiment_by_name("tiny").experiment_id])
        self.folder = Path(self.run.info.artifact_uri.removeprefix("file:"))

    def curve(self, key):
        return [(each.step, each.value) for each in self.client.get_metric_history(self.run.info.run_id, key)]

    def has_figure(self, key):
        return (self.folder / f"{key}.png").read_bytes().startswith(b"\x89PNG")

    def columns(self, key):
        assert {"path": f"{key}.json", "type": "table"} in json.loads(self.run.data.tags["mlflow.loggedArtifacts"])
        return json.loads((self.folder / f"{key}.json").read_text())["columns"]

    def text(self, key):
        return (self.folder / key).read_text()

    def artifacts(self, used):
        if used:
            tags = self.run.data.tags.items()
            return {key.removeprefix("used."): value for key, value in tags if key.startswith("used.")}
        return {
            file.parent.name: json.loads(file.read_text()).get("sha256") for file in self.folder.glob("*/about.json")
        }

    def number(self, key):
        return self.run.data.metrics[key]


class Wandb:
    def __init__(self, root):
        self.record = read_run(root / "wandb")
        self.media = next((root / "wandb").rglob("media"))

    def curve(self, key):
        return self.record.curve(key)

    def _media(self, key, folder, suffix):
        return next((self.media / folder / Path(key).parent).glob(f"{Path(key).name}_*{suffix}"))

    def has_figure(self, key):
        return self._media(key, "images", ".png").read_bytes().startswith(b"\x89PNG")

    def columns(self, key):
        names = {key, f"{key}_table", f"{key}_chart_table"}
        found = [
            file
            for file in (self.media / "table").rglob("*.table.json")
            if any(file.relative_to(self.media / "table").as_posix().startswith(f"{name}_") for name in names)
        ]
        return json.loads(found[-1].read_text())["columns"]

    def text(self, key):
        return next((self.media / "html").glob(f"{key}_*.html")).read_text()

    def artifacts(self, used):
        found = [each for each in self.record.of("artifact") if each.use_after_commit == used and each.metadata]
        return {each.name: json.loads(each.metadata).get("sha256") for each in found}

    def number(self, key):
        return self.record.summary()[key]


READERS = {"csv": Csv, "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": Wandb}
