"""Small results of every kind that a report reads, in which everything that somebody names has one name."""

from __future__ import annotations

import base64
import csv
import html
import json
import struct

import yaml

from vimlight.transmiter.judging.methods import METHODS

__all__ = ["WRITERS", "config", "write_comparison", "write_evaluation", "write_fit", "write_wandb"]

# One white pixel.
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg=="


def config(name="digits", seed=0):
    """A config as `vimlight fit` writes it."""
    model = {"class_path": "vimlight.DownstreamModule",
             "init_args": {"backbone": {"name": name}, "aggregator": "ens_moe"}}  # fmt: skip
    data = {"class_path": "vimlight.DownstreamDataModule", "init_args": {"dataset": name, "shots": 5}}
    return {"seed_everything": seed, "model": model, "data": data}


def _csv(file, *rows):
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def write_fit(folder, name="cat", seed=0, gain=0.0, steps=6):
    """Writes a run of `vimlight fit`; returns its log."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(name, seed), allow_unicode=True))
    rows = [[step, step // 2, 1 / (step + 1 + seed), 0.5 + gain + 0.01 * step] for step in range(steps)]
    _csv(folder / "metrics.csv", ["step", "epoch", "train/loss", "val/accuracy"], *rows)
    places = [f"blocks.{block}.{place}" for block in range(2) for place in ("attn", "mlp")]
    _csv(folder / "gates.csv", ["place", name, f"{name} 2"], *([place, 0.5, 0.25] for place in places))
    _csv(folder / "ranking.csv", ["rank", "features", "left_out_error", "less_than_bare"],
         [1, name, 0.1, 0.2], [2, "bare backbone", 0.3, 0.0])  # fmt: skip
    classes = [name, f"{name} 2"]
    _csv(folder / "val_confusion.csv", ["true", *classes], [classes[0], 8, 2], [classes[1], 3 - 10 * gain, 7])
    _csv(folder / "val_reliability.csv", ["images", "confidence", "accuracy"], [4, 0.4, 0.5], [16, 0.9, 0.75])
    _csv(folder / "val_precision_recall.csv", ["class", "recall", "precision"], [name, 1, 0.4], [name, 0, 1])
    (folder / "summary.json").write_text(json.dumps({"best/val/accuracy": 0.6}))
    artifact = {"name": name, "kind": "module", "used": True, "file": name, "about": {"sha256": "ab" * 32}}
    (folder / "artifacts.json").write_text(json.dumps([artifact]))
    (folder / "val_images.png").write_bytes(base64.b64decode(_PNG))
    (folder / "versions.json").write_text(json.dumps({"torch": name}))
    return folder / "metrics.csv"


def records(name="cat", methods=2, seeds=2):
    """Records of two tasks and of some methods and seeds."""
    return [
        {
            "backbone": name, "task": f"{name} {task}", "method": f"{name} {method}", "shots": 5, "seed": seed,
            "metric": name, "mode": "max", "value": 0.01 * task + 0.1 * method + 0.01 * seed, "parameters": 10,
            "flops": 1.0 + method, "seconds": 0.5, "group": "", "kind": "classification", "scores": {}, "modules": [],
        }
        for task in range(2) for method in range(methods) for seed in range(seeds)
    ]  # fmt: skip


def write_comparison(folder, name="cat", methods=2, seeds=2):
    """Writes results of `vimlight compare`."""
    folder.mkdir(parents=True, exist_ok=True)
    gates = {"backbone": name, "method": name, "task": name, "places": [name], "names": [name], "values": [[0.5]]}
    content = {
        "vimlight": name, "format_version": 1, "title": name, "reference": f"{name} 0", "whole": False,
        "records": records(name, methods, seeds), "gates": [gates],
        "summaries": [{"title": name, "header": ["method", name], "rows": [[[name, False], [name, True]]]}],
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(content))
    return folder / "results.json"


def write_evaluation(folder, name="cat", file="results.json"):
    """Writes results of `vimlight evaluate`."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"source_zero_shot": 0.3, "source_tuned": 0.5, "target_zero_shot": 0.4, "transmiter": 0.55}
    score = {"calibration_error": 0.1, "log_loss": 1.0, "count": 4, "reliability": [[2, 0.3, 0.5], [2, 0.8, 0.5]]}
    methods = {
        method: {
            "title": METHODS[method].title, "encoders": ["target"], "added_flops": 1e6, "seconds_per_image": 1e-6,
            "scores": {"base": {**score, "accuracy": value, "per_class": {name: value, f"{name} 2": 0.5}}},
        }
        for method, value in values.items()
    }  # fmt: skip
    summary = [
        {"method": method, "dataset": name, "shots": 4, "metric": "base", "seeds": {"0": value, "1": value + 0.1}}
        for method, value in values.items()
    ]
    source = {"target": {"path": name, "model": name, "hash": "ab12"}}
    run = {"dataset": name, "seed": 0, "sources": source, "methods": methods, "left_out": {"eft": name}}
    content = {"vimlight": name, "format_version": 1, "protocol": name, "summary": summary, "runs": [run]}
    (folder / file).write_text(json.dumps(content))
    return folder / file


def _history(**values):
    """A call of `log`; of a table or an image, its parts have keys of their own."""
    from wandb.proto import wandb_internal_pb2 as proto

    record = proto.Record()
    for key, value in values.items():
        parts = value.items() if isinstance(value, dict) else [(None, value)]
        for part, content in parts:
            item = record.history.item.add(value_json=json.dumps(content))
            if part is None:
                item.key = key
            else:
                item.nested_key.extend([key, part])
    return record


def log_of(contents):
    """The bytes of a log of W&B, in blocks of 32,768 as LevelDB has them."""
    data = bytearray(b":W&B" + bytes(3))
    for content in contents:
        first = True
        while first or content:
            room = 32768 - len(data) % 32768
            if room < 7:
                data += bytes(room)
                continue
            part, content = content[: room - 7], content[room - 7 :]
            kind = (1 if first else 4) if not content else (2 if first else 3)
            data += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
    return bytes(data)


def write_wandb(folder, name="cat", seed=0, steps=6):
    """Writes what an offline run of W&B leaves; returns its file."""
    from wandb.proto import wandb_internal_pb2 as proto

    (folder / "files" / "media").mkdir(parents=True)
    classes = [name, f"{name} 2"]
    cells = [[true, given, 8 if true == given else 2] for true in classes for given in classes]
    tables = {
        "gates_table": (["place", *classes], [["blocks.0.attn", 0.5, 0.25]]),
        "ranking": (["features", "left_out_error"], [[name, 0.1], ["bare backbone", 0.3]]),
        "val/confusion_chart_table": (["Actual", "Predicted", "nPredictions"], cells),
        "val/precision_recall_chart_table": (["class", "recall", "precision"], [[name, 1.0, 0.5], [name, 0.0, 1.0]]),
        "val/reliability_chart_table": (
            ["confidence", "accuracy", "curve", "images"], [[0.4, 0.5, "as it is", 4], [1, 1, "as it should be", 0]],
        ),
    }  # fmt: skip
    rows = [_history(**{"trainer/global_step": step, "epoch": step // 2, "val/accuracy": 0.5 + 0.01 * step})
            for step in range(steps)]  # fmt: skip
    for number, (key, (columns, data)) in enumerate(tables.items()):
        path = f"media/{number}.table.json"
        (folder / "files" / path).write_text(json.dumps({"columns": columns, "data": data}))
        rows.append(_history(**{key: {"_type": "table-file", "path": path}}))
    (folder / "files" / "media" / "versions.html").write_text(f"<pre>{html.escape(json.dumps({'torch': name}))}</pre>")
    rows.append(_history(**{"versions.json": {"_type": "html-file", "path": "media/versions.html"}}))
    settings, best, artifact = proto.Record(), proto.Record(), proto.Record()
    for key, value in config(name, seed).items():
        settings.config.update.add(key=key, value_json=json.dumps(value))
    best.summary.update.add(key="best/val/accuracy", value_json="0.6")
    about = json.dumps({"sha256": "ab" * 32})
    artifact.artifact.MergeFrom(proto.ArtifactRecord(name=name, type="module", metadata=about))
    records = [settings, *rows, best, artifact]
    file = folder / "run-tiny.wandb"
    file.write_bytes(log_of([record.SerializeToString() for record in records]))
    return file


WRITERS = {"fit": write_fit, "comparison": write_comparison, "evaluation": write_evaluation, "wandb": write_wandb}
