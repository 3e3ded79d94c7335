"""Whoever writes is killed: what stood before, or the new thing whole; no half, nothing left over, and on it goes."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest
from scene import Scene
from writers import WRITERS

import vimlight


@pytest.mark.parametrize("name", WRITERS)
def test_writers_survive_a_kill_and_a_full_disk(tmp_path, name, record_property):
    scene = Scene(name, tmp_path)
    assert scene.survives(kill_at=random.Random(name).randint(1, scene.changes))
    # Not a byte more; removing takes none.
    said = scene.bears(largest=1, kill=False)
    assert ("File too large" in said) == (name != "module_removed")
    record_property("kills at changes", 1)
    record_property("disks full", int(bool(said)))


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_writers_survive_kills_at_every_change(tmp_path, name, record_property):
    scene = Scene(name, tmp_path)
    points = range(1, scene.changes + 1)
    assert sum(scene.survives(kill_at=point) for point in points) == len(points)
    record_property("kills at changes", scene.changes)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_writers_survive_kills_within_files(tmp_path, name, record_property):
    scene = Scene(name, tmp_path)
    record_property("kills within files", sum(scene.survives(largest=point) for point in scene.points))


# What writes, renames and removes by itself, and which writer tries it; what `write_whole` does is tried by `text`.
BY_ITSELF = {
    "commands/compare.py": "makes a directory",
    "commands/configs.py": "makes a directory, and copies into it what can be copied again",
    "commands/new.py": "own_package, own_package_grown",
    "comparison/modules.py": "makes a directory, which an adopted module is copied to by Zoo.add_file",
    "comparison/pulse.py": "tells how far it is; read by eye only",
    "comparison/transfer.py": "removes its own scratch directory",
    "comparison/transfers/moving.py": "removes its own scratch directory",
    "data/sources/torchvision.py": "makes a directory for a lock",
    "interop/modelscope/folder.py": "zoo_of_a_released_checkpoint",
    "interop/peft/writing.py": "peft_adapter",
    "prefix_cache/store.py": "prefix_cache, prefix_cache_that_makes_room",
    "report/dashboards/mlflow.py": "a temporary directory of its own, whose files MLflow copies",
    "report/interruption.py": "removes a checkpoint that a job went on from, tried in test_runs.py",
    "report/predicted_parts.py": "predictions_in_parts",
    "report/predictions.py": "predictions, predictions_replaced",
    "report/run_directories.py": "makes the directory of a run, and sweeps those of others; tried in test_runs.py",
    "transmiter/cache/assembly.py": "cache, cache_replaced, cache_with_another_head, caches_merged",
    "transmiter/cache/files.py": "cache, cache_with_another_head",
    "transmiter/cache/reading.py": "gives a cache its name back; cache_replaced",
    "transmiter/cache/writer.py": "cache_in_parts, cache_in_parts_replaced",
    "zoo/sharing/moving.py": "modules_pulled, modules_pushed",
    "zoo/sharing/places.py": "modules_pushed",
    "zoo/signing.py": "a temporary directory of its own; module_signed",
    "zoo/zoo.py": "module, module_replaced, module_removed, modules_exported",
}
FUNCTIONS = {
    "hidden", "publish", "publish_directory", "recover", "save_file", "set_aside", "sweep", "temporary",
    "temporary_directory",
}  # fmt: skip
METHODS = {
    "copyfile", "copytree", "hardlink_to", "link", "mkdir", "mkdtemp", "rename", "rmdir", "rmtree", "save_file",
    "symlink_to", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip


def changes(path):
    """Tells whether a module has calls that change files, besides those of `write_whole`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        words = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        if isinstance(node.func, ast.Name):
            opens, known = node.func.id == "open", FUNCTIONS
        else:
            opens, known = getattr(node.func, "attr", "") == "open", METHODS
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in known or (opens and any(len(word) < 4 and set(word) & set("wxa+") for word in words)):
            return True
    return False


def test_every_module_that_changes_files_by_itself_is_known_and_tried():
    package = Path(vimlight.__file__).parent
    modules = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    found = {name for name, path in modules.items() if not name.startswith("files/") and changes(path)}
    assert found == BY_ITSELF.keys()
    named = {word for text in BY_ITSELF.values() for word in text.replace(",", " ").split() if word in WRITERS}
    assert named >= WRITERS.keys() - {
        "adapter", "adapter_replaced", "checkpoint", "checkpoint_replaced", "export", "released_checkpoint", "result",
        "tables", "text",
    }  # fmt: skip
