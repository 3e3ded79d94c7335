"""Protocols on cases made by hand."""

from __future__ import annotations

import pytest
import torch

from vimlight.errors import ConfigError, UnknownNameError
from vimlight.transmiter.judging.protocols import PROTOCOLS, harmonic_mean, resolve_partition

PARTITION = {"base": [0, 2], "novel": [1, 3]}
EVERY = pytest.mark.parametrize("name", list(PROTOCOLS))


@EVERY
def test_every_protocol_says_what_it_does_and_scores_every_image_once(name):
    protocol = PROTOCOLS[name]()
    assert protocol.name == name
    assert protocol.text
    groups = protocol.groups(4, PARTITION if protocol.partitioned else {})
    assert sorted(label for group in groups for label in group.classes) == [0, 1, 2, 3]
    assert all(set(group.classes) <= set(group.columns) for group in groups)
    accuracies = {group.name: 0.5 for group in groups}
    found = protocol.combine(accuracies, dict.fromkeys(accuracies, 3))
    assert found[protocol.headline] == 0.5
    assert set(accuracies) <= set(found)


def test_base_to_novel_scores_each_half_among_its_own_columns():
    base, novel = PROTOCOLS["base_to_novel"]().groups(4, PARTITION)
    assert (base.name, base.classes, base.columns) == ("base", (0, 2), (0, 2))
    assert (novel.name, novel.classes, novel.columns) == ("novel", (1, 3), (1, 3))
    assert PROTOCOLS["base_to_novel"]().known(4, PARTITION) == (0, 2)


def test_all_classes_scores_both_halves_among_all_columns():
    protocol = PROTOCOLS["all_classes"]()
    assert [group.columns for group in protocol.groups(4, PARTITION)] == [(0, 1, 2, 3)] * 2
    found = protocol.combine({"base": 1.0, "novel": 0.5}, {"base": 30, "novel": 10})
    assert found["all"] == (30 + 5) / 40
    assert found["harmonic"] == pytest.approx(2 / 3)


def test_nothing_was_tuned_on_the_classes_of_another_data_set():
    assert PROTOCOLS["cross_dataset"]().known(4, {}) == ()
    assert PROTOCOLS["base_to_base"]().known(4, {}) == (0, 1, 2, 3)


@pytest.mark.parametrize(("first", "second"), [(0.8, 0.4), (0.3, 0.3), (1.0, 1.0), (0.9, 0.0)])
def test_the_harmonic_mean_is_that_of_the_standard_library(first, second):
    import statistics

    assert harmonic_mean(first, second) == pytest.approx(statistics.harmonic_mean([first, second]))


def test_base_classes_come_from_the_manifest_or_from_the_user():
    protocol, names = PROTOCOLS["base_to_novel"](), ["a", "b", "c", "d"]
    assert resolve_partition(protocol, names, {"base": [3, 0]}, None) == {"base": [0, 3], "novel": [1, 2]}
    stored = {"base": [0], "novel": [2]}
    assert resolve_partition(protocol, names, stored, None) == {"base": [0], "novel": [2]}, "class 1 and 3 are neither"
    assert resolve_partition(protocol, names, stored, [1, 1]) == {"base": [1], "novel": [0, 2, 3]}
    assert resolve_partition(PROTOCOLS["base_to_base"](), names, stored, None) == {}


@pytest.mark.parametrize(
    ("name", "stored", "base", "message"),
    [
        ("base_to_novel", {}, None, "needs the base classes: pass --base 0,1,2 or names"),
        ("base_to_novel", {}, [0, 1, 2, 3], "no class is left for 'novel': 4 of 4 classes are base"),
        ("base_to_novel", {"base": [], "novel": [1]}, None, "no class is left for 'base'"),
        ("all_classes", {"base": [0, 1], "novel": [1, 2]}, None, "class 'b' is both base and novel"),
        ("base_to_base", {}, [0], "protocol 'base_to_base' has no base classes; leave out --base"),
    ],
)
def test_partitions_that_make_no_sense_are_refused(name, stored, base, message):
    with pytest.raises(ConfigError, match=message):
        resolve_partition(PROTOCOLS[name](), ["a", "b", "c", "d"], stored, base)


def test_a_mistyped_protocol_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown protocol 'base_to_new'; did you mean 'base_to_novel'"):
        _ = PROTOCOLS["base_to_new"]


def test_a_protocol_from_outside(open_world):
    from vimlight.transmiter.judging.evaluation import evaluate
    from vimlight.transmiter.judging.protocols import Group, Protocol

    @PROTOCOLS.register("first_two")
    class FirstTwo(Protocol):
        """Images of the first two classes among these."""

        name, text = "first_two", "the first two classes"

        def groups(self, num_classes, partition):
            return (Group("accuracy", (0, 1), (0, 1)),)

    try:
        inputs = open_world()
        found = evaluate(inputs, "first_two", methods=["target_zero_shot"]).results["target_zero_shot"]
        rows = torch.isin(inputs.labels, torch.tensor([0, 1]))
        right = inputs.caches["target"].logits(columns=[0, 1])[rows].argmax(dim=1) == inputs.labels[rows]
        assert found.accuracies == {"accuracy": pytest.approx(right.float().mean().item())}
    finally:
        del PROTOCOLS._entries["first_two"]
