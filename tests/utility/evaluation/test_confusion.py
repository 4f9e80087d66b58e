"""The confusion matrix and its picture."""

import numpy as np
import pytest
from matplotlib.image import imread

from mynah.utility.evaluation.confusion import confusion_counts, draw_confusion


def test_counts_equal_a_loop_over_the_utterances():
    draw = np.random.default_rng(0)
    labels, predicted = draw.integers(0, 5, 40).tolist(), draw.integers(0, 5, 40).tolist()
    counts = confusion_counts(labels, predicted, 6)
    for row in range(6):
        for column in range(6):
            expected = sum(pair == (row, column) for pair in zip(labels, predicted, strict=True))
            assert counts[row, column] == expected


@pytest.mark.parametrize("num_classes", [2, 10, 1251])
def test_picture_is_a_readable_size_and_shows_the_diagonal(num_classes, tmp_path):
    classes = [f"id1{number:04d}" for number in range(num_classes)]
    right = draw_confusion(np.eye(num_classes, dtype=int), classes, tmp_path / "right.png", "all right")
    wrong = draw_confusion(np.eye(num_classes, dtype=int)[::-1], classes, tmp_path / "wrong.png", "all wrong")
    picture, mirrored = imread(right), imread(wrong)
    assert 500 <= picture.shape[0] <= 2500 and 500 <= picture.shape[1] <= 2500
    assert picture.std() > 0.05
    assert not np.array_equal(picture, mirrored)


def test_names_of_classes_are_drawn_as_they_are(tmp_path, recwarn):
    """No formula, and no warning for what no font has."""
    draw_confusion(np.eye(4, dtype=int), ["a$b", "$\\foo$", "是", "c_{d}"], tmp_path / "odd.png", "$\\foo$")
    assert not recwarn.list


def test_drawing_leaves_pyplot_alone(tmp_path):
    import matplotlib.pyplot

    before = matplotlib.pyplot.get_fignums()
    draw_confusion(np.eye(3, dtype=int), list("abc"), tmp_path / "small.png", "three")
    assert matplotlib.pyplot.get_fignums() == before


def test_classes_that_never_occur_are_no_error(tmp_path):
    counts = np.zeros((3, 3), dtype=int)
    counts[0, 1] = 2
    with np.errstate(all="raise"):
        assert draw_confusion(counts, list("abc"), tmp_path / "sparse.png", "one row").stat().st_size > 0
