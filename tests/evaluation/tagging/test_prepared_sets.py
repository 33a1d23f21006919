"""Tests of pcl_jax.evaluation.tagging.prepared_sets."""

import json
import shutil

from flax import nnx
import numpy as np
import pytest

from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.embedding import song_encoder
from pcl_jax.evaluation import mel_baselines
from pcl_jax.evaluation.tagging import labelled_sets
from pcl_jax.evaluation.tagging import prepared_sets
from pcl_jax.models import audio_encoder
from pcl_jax.models import compiled_encoder
from preprocessing.tagging import gtzan
from preprocessing.tagging import preparation
from preprocessing.tagging import tagging_store
from tests.support import quick_backbone
from tests.support.tiny import tiny_tagging

pytestmark = pytest.mark.usefixtures("quick_compilation")
LONG_S = {"rock.00000": 9.0, "jazz.00002": 4.1, "pop.00001": 13.0}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A prepared set of 30 clips in shards of four, three of them long."""
  folder = tmp_path_factory.mktemp("gtzan")
  lists, source = tiny_tagging.make_gtzan(folder)
  for name, seconds in LONG_S.items():
    path = source / "genres" / name.partition(".")[0] / f"{name}.wav"
    tiny_tagging.write_clip(path, seed=len(name), seconds=seconds)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(gtzan, "PUBLISHED", 30)
    patch.setattr(tagging_store, "SHARD_CLIPS", 4)
    clip_list = preparation.read_lists("gtzan", lists)
    preparation.prepare(clip_list, source, folder / "out")
  return folder


def _mean_mel(patches):
  return np.asarray(patches, np.float32).mean(axis=1)


def _store_of(opened, path):
  """Returns a song store with the features of a set's clips."""
  writer = song_writer.SongWriter(path)
  writer.add([(i, clip.mel) for i, clip in enumerate(opened.clips())])
  writer.finish({})
  return song_store.SongStore(path)


def test_clips_come_with_their_labels_split_and_feature(prepared):
  found = prepared_sets.TaggingSet(prepared / "out")
  assert (found.name, found.part, len(found)) == ("gtzan-filtered", "whole", 30)
  assert found.single_label and not found.partial and found.left_out == {}
  clips = list(found.clips())
  assert [clip.split for clip in clips] == [
    split
    for split in (
      labelled_sets.TRAIN,
      labelled_sets.VALIDATION,
      labelled_sets.TEST,
    )
    for _ in range(10)
  ]
  for clip in clips:
    genre, number = clip.id.split(".")
    assert found.tags[int(clip.labels.argmax())] == genre
    assert clip.labels.sum() == 1 and int(number) == clip.split
    path = prepared / "audio" / "genres" / genre / f"{clip.id}.wav"
    np.testing.assert_array_equal(clip.mel, decode.read_feature(path))


@pytest.mark.parametrize("batch_patches", [3, 64])
def test_a_clips_embedding_is_the_mean_over_its_whole_patches(
  prepared, batch_patches
):
  opened = prepared_sets.TaggingSet(prepared / "out")
  found, rows, _ = prepared_sets.embed_clips(
    opened, _mean_mel, batch_patches=batch_patches
  )
  assert rows.shape == (30, 48) and rows.dtype == np.float32
  for clip, row in zip(opened.clips(), rows, strict=True):
    mel = clip.mel.astype(np.float64)
    whole = len(mel) // 256 * 256
    if whole:
      mel = mel[:whole]
    else:
      silence = np.full((256 - len(mel), 48), melspectrogram.SILENCE)
      mel = np.concatenate([mel, silence])
    np.testing.assert_allclose(row, mel.mean(axis=0), atol=2e-6)
  assert found.ids == tuple(clip.id for clip in opened.clips())
  assert found.name == opened.name and found.tags == gtzan.GENRES


def test_clips_are_embedded_as_songs_of_a_store_are(
  prepared, tmp_path, monkeypatch
):
  quick_backbone.register(monkeypatch)
  encoder = audio_encoder.AudioEncoder(
    quick_backbone.NAME, width=4, rngs=nnx.Rngs(0)
  )
  opened = prepared_sets.TaggingSet(prepared / "out")
  store = _store_of(opened, tmp_path / "songs.lmdb")
  songs = np.arange(30)
  expected = song_encoder.embed_songs(encoder, store, songs, batch_patches=16)
  embedder = compiled_encoder.make_embedder(encoder)
  found = prepared_sets.embed_clips(opened, embedder, batch_patches=16)
  np.testing.assert_array_equal(found.features, expected)
  found = prepared_sets.mel_statistics(opened)
  expected = mel_baselines.mean_std_mel(store, songs)
  np.testing.assert_array_equal(found.features, expected)
  assert found.labelled.ids == tuple(clip.id for clip in opened.clips())


def test_the_patches_of_a_clip_have_its_embedding_as_their_mean(prepared):
  opened = prepared_sets.TaggingSet(prepared / "out")
  expected, means, _ = prepared_sets.embed_clips(
    opened, _mean_mel, batch_patches=7
  )
  found, patches, song_index = prepared_sets.embed_clips(
    opened, _mean_mel, per_patch=True, batch_patches=7
  )
  assert found.ids == expected.ids
  lengths = [len(clip.mel) for clip in opened.clips()]
  counts = np.maximum(np.array(lengths) // 256, 1)
  np.testing.assert_array_equal(song_index, np.repeat(np.arange(30), counts))
  for clip, mean in enumerate(means):
    own = patches[song_index == clip].mean(axis=0)
    np.testing.assert_allclose(own, mean, atol=1e-6)


def test_genres_can_be_learnt_from_a_prepared_set(prepared):
  opened = prepared_sets.TaggingSet(prepared / "out")
  found, rows, _ = prepared_sets.embed_clips(opened, _mean_mel)
  train = found.split == labelled_sets.TRAIN
  test = found.split == labelled_sets.TEST
  distances = np.linalg.norm(rows[test][:, None] - rows[train][None], axis=-1)
  nearest = found.labels[train][distances.argmin(axis=1)]
  # Tones of each genre are alike in the three splits; chance is 0.1.
  assert (nearest & found.labels[test]).any(axis=1).mean() > 0.3


def test_a_feature_of_other_settings_is_refused_with_both_values(
  prepared, tmp_path
):
  shutil.copytree(prepared / "out", tmp_path / "out")
  path = tmp_path / "out" / "metadata.json"
  meta = json.loads(path.read_text())
  meta["feature"]["hop_samples"] = 512
  path.write_text(json.dumps(meta))
  with pytest.raises(
    errors.InputError, match="hop_samples: there 512, here 256"
  ):
    prepared_sets.TaggingSet(tmp_path / "out")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"{", "is damaged or not of a tagging set"),
    (b"{}", "KeyError"),
    (b"[]", "is damaged"),
    (b"\xff", "is damaged"),
  ],
)
def test_damaged_metadata_is_refused(prepared, tmp_path, content, message):
  shutil.copytree(prepared / "out", tmp_path / "out")
  (tmp_path / "out" / "metadata.json").write_bytes(content)
  with pytest.raises(errors.InputError, match=message):
    prepared_sets.TaggingSet(tmp_path / "out")


def test_another_format_and_another_folder_are_refused(prepared, tmp_path):
  with pytest.raises(errors.InputError, match="not a prepared tagging set"):
    prepared_sets.TaggingSet(prepared / "audio")
  shutil.copytree(prepared / "out", tmp_path / "out")
  path = tmp_path / "out" / "metadata.json"
  meta = json.loads(path.read_text())
  path.write_text(json.dumps(meta | {"format_version": 2}))
  with pytest.raises(errors.InputError, match="format version 2"):
    prepared_sets.TaggingSet(tmp_path / "out")


@pytest.mark.parametrize("how", ["removed", "truncated", "zeroed", "flipped"])
def test_damaged_records_are_refused_in_words(prepared, tmp_path, how):
  shutil.copytree(prepared / "out", tmp_path / "out")
  path = sorted((tmp_path / "out").glob("*test.array_record*"))[1]
  content = bytearray(path.read_bytes())
  if how == "removed":
    path.unlink()
  elif how == "truncated":
    path.write_bytes(content[: len(content) // 2])
  elif how == "zeroed":
    path.write_bytes(bytes(len(content)))
  else:
    content[len(content) // 8] ^= 0xFF
    path.write_bytes(content)
  with pytest.raises(errors.InputError, match="missing or damaged"):
    list(prepared_sets.TaggingSet(tmp_path / "out").clips())
