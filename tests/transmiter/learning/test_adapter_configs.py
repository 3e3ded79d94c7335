"""The shipped configs of extraction and refinement, end to end on tiny caches, and mistakes on their command line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import yaml
from tiny_pair import AUX, CLASSES, write_pair

from vimlight.cli import main
from vimlight.transmiter import TransMiter

CONFIGS = Path(__file__).parents[3] / "configs" / "transmiter"
QUICK = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory with the caches that the configs name."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 80), ("val", 40)):
        for cache in write_pair(tmp_path / split, count):
            Path("caches", cache.path.name).mkdir(parents=True, exist_ok=True)
            cache.path.rename(Path("caches", cache.path.name, split))
    return tmp_path


def fit(name, *words):
    main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), *QUICK, *words])


def move():
    caches = ["--source", "caches/weak/train", "--target", "caches/strong/train"]
    main(["transfer", "--adapter", "weak.safetensors", *caches, "--out", "strong.safetensors"])


@pytest.mark.parametrize("name", ["extract", "finetune"])
def test_a_config_is_short_and_says_how_to_run_it(name):
    lines = (CONFIGS / f"{name}.yaml").read_text().splitlines()
    assert len(lines) <= 40
    assert lines[0].startswith("# ")
    assert any(f"vimlight fit --config @transmiter/{name}" in line for line in lines)


@pytest.mark.slow
def test_from_caches_to_a_refined_adapter(workplace, capsys):
    """Extraction, transfer, refinement, and what can be done with a run of each."""
    fit("extract")
    assert TransMiter.load("weak.safetensors").card.model == "weak"
    move()
    fit("finetune", "--data.shots=4")
    refined = TransMiter.load("strong_plus.safetensors")
    assert [step["step"] for step in refined.card.history] == ["extraction", "transfer", "refinement"]
    assert refined.card.class_names == CLASSES
    for version, name in enumerate(("extract", "finetune")):
        run = Path(f"runs/fit/version_{version}")
        assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 2
        assert (run / "metrics.csv").read_text().count("\n") >= 3
        common = ["--config", str(CONFIGS / f"{name}.yaml"), "--ckpt_path", str(run / "checkpoints/last.ckpt"), *QUICK]
        main(["test", *common, "--data.test=caches/strong/train"])
        main(["predict", *common, "--data.test=caches/strong/train", f"--predictions.path={name}.csv"])
        with Path(f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["id"] for row in rows] == [str(number) for number in range(80)]
        assert set(rows[0]) == {"id", "label", *(f"p_{label}" for label in CLASSES)}
    assert "test/accuracy" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_is_resumed_and_its_adapter_is_not_replaced_unasked(workplace, capsys):
    fit("extract")
    first = Path("weak.safetensors").read_bytes()
    with pytest.raises(SystemExit):
        fit("extract")
    assert "'weak.safetensors' exists; choose another path or pass --model.overwrite true" in capsys.readouterr().err
    assert Path("weak.safetensors").read_bytes() == first
    last = "--ckpt_path=runs/fit/version_0/checkpoints/last.ckpt"
    fit("extract", last, "--trainer.max_epochs=3", "--model.out=more.safetensors")
    step = TransMiter.load("more.safetensors").card.history[-1]
    assert step["training"]["epochs"] == 3
    fit("extract", "--model.overwrite=true", "--model.seed=1")
    assert Path("weak.safetensors").read_bytes() != first


@pytest.mark.slow
def test_the_same_command_gives_the_same_adapter(workplace):
    for name in ("a", "b"):
        fit("extract", f"--model.out={name}.safetensors", f"--seed_everything={ord(name)}")
    first, second = (TransMiter.load(f"{name}.safetensors") for name in ("a", "b"))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


MISTAKES = {
    "model class": (["--model=ExtractonModule"], "unknown class 'ExtractonModule'; did you mean 'ExtractionModule'"),
    "data class": (["--data=CacheDataModul"], "unknown class 'CacheDataModul'; did you mean 'CacheDataModule'"),
    "model key": (["--model.temprature=2"], "key 'model.temprature'; did you mean 'model.init_args.temperature'"),
    "data key": (["--data.tunde=x"], "unknown key 'data.tunde'; did you mean 'data.init_args.tuned'"),
    "cache": (["--data.train=caches/weak/trian"], "'caches/weak/trian' does not exist; did you mean"),
    "tuned": (["--data.tuned=null"], "extraction learns from a fine-tuned model: set data.tuned"),
    "out": (["--model.out=weak.pt"], "an adapter is a .safetensors file; 'weak.pt' ends in '.pt'"),
    "data of another family": (
        ["--data={class_path: MidstreamDataModule, init_args: {dataset: digits}}"],
        "ExtractionModule learns from cached logits, MidstreamDataModule brings none; choose another data class",
    ),
    "model of another family": (
        ["--model={class_path: MidstreamModule, init_args: {backbone: {name: test_vit}}}"],
        "MidstreamModule learns from images, CacheDataModule brings none; choose another data class",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_one_line_and_leaves_nothing_behind(workplace, capsys, mistake):
    words, expected = MISTAKES[mistake]
    before = {str(path) for path in workplace.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stopped:
        fit("extract", *words)
    assert stopped.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vimlight: ")]
    assert len(said) == 1
    assert expected in said[0]
    assert {str(path) for path in workplace.rglob("*") if path.is_file()} == before


def test_a_strange_adapter_is_refused(workplace, capsys):
    TransMiter(16, 4).describe(class_names=(*CLASSES[:3], "elk"), aux_names=AUX).save("strong.safetensors")
    with pytest.raises(SystemExit):
        fit("finetune", "--data.shots=4")
    assert "for other classes than the data have: missing ['elk'], extra ['owl']" in capsys.readouterr().err
