"""Scores of each class from counts, by scikit-learn's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix, precision_recall_fscore_support

from vimlight.report.class_scores import class_scores

NAMES = ["a", "b", "c", "d"]
# Nobody has the third class, nothing is given the last one.
TRUE, GIVEN = np.array([0, 0, 1, 1, 1, 3]), np.array([0, 1, 1, 1, 2, 0])
FLAGS, NAMED = np.eye(4, dtype=int)[TRUE], np.eye(4, dtype=int)[GIVEN]


@pytest.mark.parametrize(
    ("counts", "true", "given"),
    [(confusion_matrix(TRUE, GIVEN), TRUE, GIVEN), (multilabel_confusion_matrix(FLAGS, NAMED), FLAGS, NAMED)],
    ids=["one class", "several"],
)
def test_scores_of_classes(counts, true, given):
    found = class_scores(counts, NAMES)
    expected = precision_recall_fscore_support(true, given, zero_division=np.nan)
    for place, column in ((2, 0), (3, 1), (4, 2), (1, 3)):
        values = [np.nan if score[place] is None else score[place] for score in found]
        np.testing.assert_allclose(values, expected[column])
    assert [score.name for score in found] == NAMES
