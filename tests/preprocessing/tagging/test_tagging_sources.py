"""Tests of what is special to a published tagging set when it is prepared."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pcl_jax.audio import decode
from pcl_jax.common import errors
from preprocessing.library import decoding
from preprocessing.tagging import magnatagatune
from preprocessing.tagging import mtg_jamendo
from preprocessing.tagging import preparation
from preprocessing.tagging import tagging_coverage
from preprocessing.tagging import tagging_store
from tests.support.tiny import tiny_tagging


@pytest.fixture
def small_shards(monkeypatch):
  """Four clips a shard, so that a tiny set has several."""
  monkeypatch.setattr(tagging_store, "SHARD_CLIPS", 4)


def test_a_clip_in_two_files_is_refused(tmp_path):
  lists, audio = tiny_tagging.make_jamendo(tmp_path)
  clip_list = mtg_jamendo.read(lists, "instrument", 0, "whole")
  assert not tagging_coverage.cover(tmp_path, clip_list).missing
  tiny_tagging.write_clip(tmp_path / "audio" / "00" / "1000.flac")
  with pytest.raises(errors.InputError, match="in 2 files"):
    tagging_coverage.cover(tmp_path, clip_list)


def test_mtg_jamendo_is_prepared_from_small_mp3_files(tmp_path, monkeypatch):
  lists, audio = tiny_tagging.make_jamendo(tmp_path)
  monkeypatch.setitem(mtg_jamendo.PUBLISHED, "instrument", (4, 4, 4))
  clip_list = preparation.read_lists("mtg_jamendo", lists, subset="instrument")
  report = preparation.prepare(clip_list, audio, tmp_path / "out")
  assert report["name"] == "mtg_jamendo-instrument-split0-whole"
  assert report["splits"] == {"train": 4, "validation": 4, "test": 4}
  source = tfds.builder_from_directory(tmp_path / "out").as_data_source("test")
  record = source[1]
  assert record["id"] == b"track_0001021"
  expected = decode.read_feature(audio / "21" / "1021.low.mp3")
  np.testing.assert_array_equal(record["mel"], expected)
  assert [clip_list.tags[i] for i in record["tags"]] == [
    f"instrument---t{i:02d}" for i in range(1, 40, 4)
  ]


def test_features_of_another_split_are_taken_instead_of_decoded(
  tmp_path, monkeypatch, small_shards
):
  lists, audio = tiny_tagging.make_jamendo(tmp_path)
  monkeypatch.setitem(mtg_jamendo.PUBLISHED, "instrument", (4, 4, 4))
  clip_list = mtg_jamendo.read(lists, "instrument", 0, "whole")
  preparation.prepare(clip_list, audio, tmp_path / "first")
  rows = tiny_tagging.jamendo_rows()
  rows["train"], rows["test"] = rows["test"], rows["train"]
  tiny_tagging.write_jamendo(lists, rows)
  other = mtg_jamendo.read(lists, "instrument", 0, "whole")
  preparation.prepare(other, audio, tmp_path / "decoded")
  with monkeypatch.context() as patch:
    patch.setattr(decoding, "decode", lambda *_: 1 / 0)
    preparation.prepare(
      other, audio, tmp_path / "taken", features_from=[tmp_path / "first"]
    )
  assert tiny_tagging.contents(tmp_path / "taken") == tiny_tagging.contents(
    tmp_path / "decoded"
  )
  centre = mtg_jamendo.read(lists, "instrument", 0, "centre")
  with pytest.raises(errors.InputError, match="part whole, and mtg_jamendo-"):
    preparation.prepare(
      centre, audio, tmp_path / "none", features_from=[tmp_path / "first"]
    )
  assert not list(tmp_path.glob("none*"))


def test_the_centre_of_a_track_is_what_is_stored(tmp_path, monkeypatch):
  rows = tiny_tagging.jamendo_rows(tracks=1)
  rows["train"][0][4] = "30.1"
  lists = tiny_tagging.write_jamendo(tmp_path, rows)
  for some in rows.values():
    tiny_tagging.write_clip(
      tmp_path / "audio" / some[0][3].replace("mp3", "ogg"), seconds=30.1
    )
  monkeypatch.setitem(mtg_jamendo.PUBLISHED, "instrument", (1, 1, 1))
  clip_list = mtg_jamendo.read(lists, "instrument", 0, "centre")
  preparation.prepare(clip_list, tmp_path / "audio", tmp_path / "out")
  source = tfds.builder_from_directory(tmp_path / "out").as_data_source("train")
  expected = decode.read_feature(
    tmp_path / "audio" / rows["train"][0][3].replace("mp3", "ogg"), 0.5, 29.6
  )
  np.testing.assert_array_equal(source[0]["mel"], expected)


def test_the_21k_split_leaves_out_short_clips_by_rule(tmp_path, monkeypatch):
  folder = tiny_tagging.make_mtat(tmp_path / "mtat")
  monkeypatch.setattr(magnatagatune, "PUBLISHED_ROWS", 48)
  larger = preparation.read_lists("magnatagatune", folder, split="25k")
  report = preparation.prepare(larger, folder, tmp_path / "25k")
  assert report["name"] == "magnatagatune-25k" and report["clips"] == 48
  source = tfds.builder_from_directory(tmp_path / "25k").as_data_source("test")
  assert [list(record["tags"]) for record in source][2::3] == [[], [], []]
  # Of 0.3 s are all but one in each split.
  for name in ("0/clip-0", "c/clip-36", "f/clip-45"):
    tiny_tagging.write_clip(folder / f"{name}.wav", seconds=29.12)
  smaller = preparation.read_lists("magnatagatune", folder, split="21k")
  report = preparation.prepare(smaller, folder, tmp_path / "21k")
  assert report["name"] == "magnatagatune-21k" and not report["partial"]
  assert report["splits"] == {"train": 1, "validation": 1, "test": 1}
  assert report["left_out_by_rule"] == {
    "none of the 50 tags": 16,
    "too short": 29,
  }
  assert not report["audio_without_labels"]
