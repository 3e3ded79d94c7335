"""`vimlight cache`, run in this process as the command line runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_layouts import write_coop
from tiny_models import SIZE, write_open_clip

from vimlight.cli import main
from vimlight.commands.cache import main as cache_main
from vimlight.errors import VimlightError
from vimlight.transmiter import LogitCache, check_paired
from vimlight.transmiter.cache.images import read_ahead

CONFIGS = Path(__file__).parents[3] / "configs" / "transmiter"
SHAPES = "--data.dataset_args={task: shapes, train: 150, test: 24, size: 32}"
RNG = np.random.default_rng(0)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Returns a function that runs a command in an empty directory and returns what it prints."""
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("cat\ndog\nfish\n")
    np.save("Z.npy", RNG.standard_normal((20, 3)).astype(np.float32))
    np.save("F.npy", RNG.standard_normal((20, 8)).astype(np.float32))
    np.save("H.npy", RNG.standard_normal((3, 8)).astype(np.float32))
    np.save("L.npy", np.arange(20) % 3)

    def command(*words):
        capsys.readouterr()
        main(["cache", *map(str, words)])
        return capsys.readouterr().out

    return command


def refusal(*words):
    with pytest.raises(VimlightError) as error:
        cache_main([str(word) for word in words])
    assert error.value.exit_code == 2
    assert str(error.value).count("\n") <= 1
    return str(error.value)


def bare(out="bare", *more):
    return ("import", "--logits", "Z.npy", "--classes", "names.txt", "--split", "test", "--out", out, *more)


def features(out="features", *more):
    files = ("--features", "F.npy", "--head", "H.npy", "--classes", "names.txt", "--labels", "L.npy")
    return ("import", *files, "--scale", "30", "--split", "train", "--out", out, *more)


def test_import(run):
    assert run(*bare()) == "bare: bare logits of 20 images, not labelled; 3 task classes and 0 auxiliary ones\n"
    assert run(*features()) == (
        "features: features of width 8 of 20 images, labelled; 3 task classes and 0 auxiliary ones\n"
    )
    cache = LogitCache.open("features")
    assert (cache.head.scale, cache.split, cache.class_names) == (30.0, "train", ("cat", "dog", "fish"))
    unit = [torch.nn.functional.normalize(torch.from_numpy(np.load(name)), dim=1) for name in ("F.npy", "H.npy")]
    torch.testing.assert_close(cache.logits(), 30 * unit[0] @ unit[1].T, rtol=0, atol=0.03)
    run(*features("parts", "--partition", "base=0-1", "--partition", "novel=fish"))
    assert LogitCache.open("parts").partitions == {"base": [0, 1], "novel": [2]}


def test_info(run):
    run(*features("features", "--partition", "base=0-1"))
    lines = dict(line.split("\t") for line in run("info", "features").splitlines())
    assert lines["class_names"] == "cat, dog, fish"
    assert lines["partitions"] == "base (0, 1)"
    assert lines["images_per_class"] == "cat 7, dog 7, fish 6"
    assert "vocabulary" not in lines, "what says nothing is left out"
    fields = json.loads(run("info", "features", "--json"))
    assert (fields["rows"], fields["width"], fields["hash"]) == (20, 8, LogitCache.open("features").hash)


def test_verify(run, capsys):
    run(*features())
    run(*bare())
    assert run("verify", "features", "bare") == "caches checked: 2, all of them whole\n"
    content = bytearray(Path("features/features.npy").read_bytes())
    content[-1] ^= 1
    Path("features/features.npy").write_bytes(content)
    with pytest.raises(SystemExit) as leaving:
        run("verify", "bare", "features")
    assert leaving.value.code == 1
    assert "features\tfeatures.npy was altered after it was written" in capsys.readouterr().out


def test_merge(run):
    run(*features())
    Path("ids.txt").write_text("\n".join(f"more{row}" for row in range(20)))
    run(*features("more", "--ids", "ids.txt"))
    assert run("merge", "features", "more", "--out", "all", "--split", "both").startswith(
        "all: features of width 8 of 40"
    )
    assert LogitCache.open("all").split == "both"


def test_head_from_a_file(run):
    run(*features())
    Path("new.txt").write_text("fish\ncat\ncow\ndog\n")
    Path("aux.txt").write_text("oak\n")
    np.save("H2.npy", RNG.standard_normal((5, 8)))
    printed = run("head", "features", "--head", "H2.npy", "--classes", "new.txt", "--aux", "aux.txt", "--out", "new")
    assert printed == "new: features of width 8 of 20 images, labelled; 4 task classes and 1 auxiliary ones\n"
    assert LogitCache.open("new").labels.tolist() == [[1, 3, 0][row % 3] for row in range(20)]
    assert LogitCache.open("new").head.scale == 30.0


def test_overwriting_is_asked_for(run):
    run(*bare())
    assert "exists; choose another directory or pass --overwrite" in refusal(*bare())
    run(*bare("bare", "--overwrite"))


def test_the_whole_way_of_a_shipped_config(run):
    config = ["--config", CONFIGS / "cache_scenes.yaml", SHAPES, "--data.shots=2", "--vocabulary.num_logits=40"]
    assert run("build", *config) == (
        "caches/weak/train: 24 images, 12 task classes, 28 others\n"
        "caches/weak/val: 24 images, 12 task classes, 28 others\n"
        "caches/weak/test: 24 images, 12 task classes, 28 others\n"
    )
    run("build", *config, "--model.name=vit_scenes_base", "--out=caches/strong/{split}")
    for split in ("train", "val", "test"):
        check_paired(*(LogitCache.open(f"caches/{model}/{split}") for model in ("weak", "strong")))
    train = LogitCache.open("caches/weak/train")
    assert train.num_views == 4
    assert train.partitions == {"base": [0, 1, 2, 3, 4, 5], "novel": [6, 7, 8, 9, 10, 11]}
    assert train.verify() == []
    Path("words.txt").write_text("red thing\nblue thing\n")
    run(
        "head",
        "caches/weak/test",
        "--num-logits",
        14,
        "--words",
        "words.txt",
        "--templates",
        "simple",
        "--out",
        "other",
    )
    assert set(LogitCache.open("other").aux_names) == {"red thing", "blue thing"}
    assert len(LogitCache.open("other").manifest.text["templates"]) == 7
    run("head", "caches/weak/val", "--aux", "other", "--out", "same")
    assert LogitCache.open("same").aux_names == LogitCache.open("other").aux_names


def test_the_config_for_clip(run, tmp_path):
    from PIL import Image

    name = write_open_clip(tmp_path / "clip")
    for label in ("aster", "rose"):
        for number in range(5):
            path = tmp_path / "images" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 255, (SIZE, SIZE + number, 3), dtype=np.uint8)).save(path)
    tiny = [f"--model.name={name}", "--model.pretrained=null", "--data.num_workers=0", "--vocabulary.num_logits=20"]
    run("build", "--config", CONFIGS / "cache_clip.yaml", *tiny)
    cache = LogitCache.open("caches/clip/train")
    assert cache.class_names == ("aster", "rose")
    assert (cache.num_logits, len(cache.manifest.text["templates"])) == (20, 80)
    assert cache.manifest.model_arguments["precision"] == "bf16"


def test_the_config_for_coop(run, tmp_path):
    write_coop(tmp_path / "data/coop", "oxford_pets", classes=5, train=3)
    name = write_open_clip(tmp_path / "clip")
    tiny = [f"--model.name={name}", "--model.pretrained=null", "--data.num_workers=0"]
    tiny += ["--data.dataset_args.shots=2", "--partitions={base: 0-2, novel: 3-4}"]
    run("build", "--config", CONFIGS / "cache_coop.yaml", *tiny)
    train, val, test = (LogitCache.open(f"caches/oxford_pets/{split}") for split in ("train", "val", "test"))
    assert train.class_names[4] == "kind_4 of oxford_pets"
    assert [cache.labels.bincount().tolist() for cache in (train, val, test)] == [[2] * 5] * 3
    assert train.manifest.text["templates"] == ["a photo of a {}, a type of pet."]
    assert train.partitions == {"base": [0, 1, 2], "novel": [3, 4]}


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("cache_*.yaml")))
def test_a_config_is_short_and_says_how_to_run_it(name):
    lines = (CONFIGS / name).read_text().splitlines()
    assert len(lines) <= 40
    assert lines[0].startswith("# ")
    assert any("vimlight cache build --config" in line for line in lines)
    tested = {"cache_scenes.yaml", "cache_clip.yaml", "cache_coop.yaml"}
    assert name in tested


def test_an_interrupted_command_goes_on(run, monkeypatch):
    words = ["build", "--model.name=vit_scenes_small", "--data=DownstreamDataModule", "--data.dataset=scenes", SHAPES,
             "--data.batch_size=16", "--out=cache"]  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr("vimlight.transmiter.cache.encode.read_ahead", _interrupted)
        patched.setattr("vimlight.transmiter.cache.build._PART_ROWS", 16)
        with pytest.raises(SystemExit) as ended:
            run(*words)
    assert ended.value.code == 130
    assert Path(".cache.partial").is_dir()
    assert "holds a run with other settings (part_rows) that was interrupted" in refusal(*words)
    with monkeypatch.context() as patched:
        patched.setattr("vimlight.transmiter.cache.build._PART_ROWS", 16)
        run(*words)
    assert LogitCache.open("cache").verify() == []
    assert not Path(".cache.partial").exists()


def _interrupted(*arguments, **options):
    for number, batch in enumerate(read_ahead(*arguments, **options)):
        if number == 4:
            raise KeyboardInterrupt
        yield batch


MODEL = ["build", "--model.name=vit_scenes_small"]
DATA = ["--data=DownstreamDataModule", "--data.dataset=scenes", SHAPES]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["buidl"], "unknown command of vimlight cache 'buidl'; did you mean 'build'?"),
        ([], "the following arguments are required: COMMAND; see vimlight cache --help"),
        (["info"], "the following arguments are required: CACHE; see vimlight cache info --help"),
        (["info", "featurs"], "logit cache 'featurs' does not exist; did you mean 'features'?"),
        (bare("x", "--partition", "base"), "--partition 'base': expected NAME=CLASSES, such as base=0-4"),
        (bare("x", "--scale", "a"), "argument --scale: invalid float value: 'a'; see"),
        (["import", "--logits", "Z.npy", "--out", "x"], "the following arguments are required: --split; see vimlight"),
        (["head", "features", "--templates", "a cat", "--out", "x"], "does not say how its model 'imported' is loaded"),
        (["merge", "features", "--out", "x"], "it takes two caches or more to merge, got 1"),
        ([*MODEL, *DATA], "missing 'out'"),
        (["build", *DATA, "--out=x"], "missing 'model.name'"),
        ([*MODEL, "--out=x"], "missing 'data'"),
        ([*MODEL, *DATA, "--out=x", "--view=2"], "unknown key 'view'; did you mean 'views'?"),
        ([*MODEL, *DATA, "--out=x", "--views=two"], "views: expected int, got 'two'"),
        (
            [*MODEL, *DATA, "--out=x", "--vocabulary.num_logit=9"],
            "unknown key 'vocabulary.num_logit'; did you mean 'vocabulary.num_logits'?",
        ),
        ([*MODEL, *DATA, "--out=x", "--data.shot=2"], "did you mean 'data.init_args.shots'?"),
        ([*MODEL, *DATA, "--out=x", "--device=gpu"], "device 'gpu' is not to be had here; choose auto, cpu or cuda"),
        ([*MODEL, *DATA, "--out=x", "--precision=8"], "unknown precision '8'; valid: 16, 32, auto, bf16"),
        ([*MODEL, *DATA, "--out=x", "--split=[train, test]"], "out: 'x' must have {split} in it, since there are 2"),
        ([*MODEL, *DATA, "--out=features"], "'features' exists; choose another directory or pass --overwrite true"),
        (["build", "--config=lost.yaml"], "file 'lost.yaml' does not exist"),
        (
            ["build", "--model.name=vit_scenes_smal", *DATA, "--out=x"],
            "unknown model 'vit_scenes_smal'; did you mean 'vi",
        ),
    ],
)
def test_mistakes(run, words, message):
    run(*features())
    assert message in refusal(*words)
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], {"torch", "numpy", "rich"}),
        pytest.param(["info", "bare"], {"timm", "torchvision", "open_clip", "lightning"}, marks=pytest.mark.slow),
    ],
)
def test_looking_needs_no_heavy_import(run, words, absent):
    run(*bare())
    code = (
        "import sys; from vimlight.commands.cache import main\n"
        f"try: main({words})\nexcept SystemExit: pass\n"
        f"sys.exit(' '.join({absent} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert not done.stderr.strip()
    assert "COMMAND" in done.stdout or "imported" in done.stdout
