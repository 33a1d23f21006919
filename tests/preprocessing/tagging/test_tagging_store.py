"""Tests of tagging.tagging_store: records of a prepared set."""

import numpy as np

from preprocessing.tagging import tagging_store


def test_a_records_fields_are_in_the_order_of_their_names():
  features = tagging_store.features_of(("a", "b"))
  mel = np.zeros((3, 48), np.float16)
  record = tagging_store.serialize(
    features, {"id": "a clip", "mel": mel, "tags": [1]}
  )
  places = [record.index(name) for name in (b"\x02id", b"\x03mel", b"\x04tags")]
  assert places == sorted(places)
  found = features.deserialize_example_np(record)
  np.testing.assert_array_equal(found["mel"], mel)
  assert (found["id"], list(found["tags"])) == (b"a clip", [1])
