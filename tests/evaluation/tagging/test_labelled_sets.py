"""Tests of pcl_jax.evaluation.tagging.labelled_sets."""

import dataclasses

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.evaluation.tagging import labelled_sets
from tests.support import labelled_example


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"tags": ("one", "two")}, "2 tags; there must be 3"),
    ({"ids": ("a",)}, "1 ids; there must be 200"),
    ({"split": np.zeros(200, np.int64)}, "no validation songs"),
    ({"single_label": True}, "one tag per song"),
  ],
)
def test_a_set_that_cannot_be_learnt_is_refused(change, words):
  _, labelled = labelled_example.make()
  with pytest.raises(errors.InputError, match=words):
    dataclasses.replace(labelled, **change).check()


def test_songs_without_labels_and_labels_without_songs_are_counted():
  _, labelled = labelled_example.make()
  ids = ["new", *labelled.ids[5:][::-1], "newer"]
  found, rows, left_out = labelled_sets.align(labelled, ids)
  assert left_out == {
    labelled_sets.WITHOUT_SONG: 5,
    labelled_sets.WITHOUT_LABELS: 2,
  }
  assert found.ids == labelled.ids[5:]
  assert [ids[row] for row in rows] == list(found.ids)
  np.testing.assert_array_equal(found.labels, labelled.labels[5:])
  with pytest.raises(errors.InputError, match="none of the 200 songs"):
    labelled_sets.align(labelled, ["new"])
  with pytest.raises(errors.InputError, match="1 of 3 songs are repeated"):
    labelled_sets.align(labelled, ["s1", "s2", "s1"])
