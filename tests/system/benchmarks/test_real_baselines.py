"""Tests of benchmarks.real_music.real_baselines: what needs no training."""

import pathlib
import shutil
import sys

import numpy as np
import pytest
import soundfile

from benchmarks.real_music import kept_results
from benchmarks.real_music import musicnn
from benchmarks.real_music import real_baselines
from pcl_jax.audio import decode
from pcl_jax.common import errors
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from tests.support.tiny import tiny_data


def test_the_pitch_class_of_a_tone_is_known_at_any_octave():
  time_s = np.arange(32_000) / 16_000
  for hz in (220.0, 440.0, 880.0):
    samples = np.sin(2 * np.pi * hz * time_s).astype(np.float32)
    found = real_baselines.chroma(samples)
    assert found[:12].argmax() == 9  # A
    assert found[9] > 0.9
    np.testing.assert_allclose(found[:12].sum(), 1, rtol=1e-5)
  assert np.isfinite(real_baselines.chroma(np.zeros(100, np.float32))).all()


def test_a_gain_changes_the_first_cepstral_coefficient_alone():
  feature = np.random.default_rng(0).normal(size=(50, 48)).astype(np.float32)
  before, after = real_baselines.mfcc(feature), real_baselines.mfcc(feature + 1)
  np.testing.assert_allclose(after[1:], before[1:], atol=1e-4)
  assert after[0] - before[0] == pytest.approx(np.sqrt(48), rel=1e-4)


def test_lifted_vectors_rank_by_distance():
  rows = np.random.default_rng(0).uniform(-1, 1, (50, 4)).astype(np.float32)
  lifted = real_baselines.lifted(rows)
  lifted /= np.linalg.norm(lifted, axis=1, keepdims=True)
  distances = np.linalg.norm(rows - rows[0], axis=1)
  np.testing.assert_array_equal(
    np.argsort(-(lifted @ lifted[0]))[:20], np.argsort(distances)[:20]
  )


def test_a_file_that_bliss_cannot_decode_is_decoded_for_it(
  tmp_path, monkeypatch, capsys
):
  (tmp_path / "bliss_audio.py").write_text(
    "class Panic(BaseException):\n"
    "  pass\n"
    "class Song:\n"
    "  def __init__(self, path):\n"
    "    if not path.endswith('.wav'):\n"
    "      raise Panic('wrong codec')\n"
    "    with open(path, 'rb') as file:\n"
    "      self.analysis = [float(file.read(4) == b'RIFF')]\n"
  )
  monkeypatch.setattr(sys, "path", [*sys.path])
  monkeypatch.delitem(sys.modules, "bliss_audio", raising=False)
  song = tmp_path / "song.flac"
  soundfile.write(song, np.zeros(100), 22_050)
  analyse = real_baselines._bliss(tmp_path)
  assert analyse(song).tolist() == [1.0]
  assert f"a WAV of {song}: wrong codec" in capsys.readouterr().err
  del sys.modules["bliss_audio"]


def test_a_wheel_is_looked_at_without_a_device(tmp_path, monkeypatch):
  """Processes that train need the memory of a GPU for themselves."""
  monkeypatch.setattr(musicnn, "embedder", lambda _: 1 / 0)
  read = []
  monkeypatch.setattr(
    musicnn, "read_weights", lambda *asked: read.append(asked)
  )
  real_baselines.check(None, tmp_path)
  assert read == [(tmp_path, network) for network in musicnn.NETWORKS]


@pytest.fixture
def analysed(folds, monkeypatch):
  """Puts a made-up analysis in place of decoding; lists the songs analysed."""
  asked = []

  def analyse(path, samples):
    asked.append(int(path.name))
    if len(asked) == 50:
      raise KeyboardInterrupt
    return np.full(3, float(path.name), np.float32)

  count = len(folds[0].store)
  paths = [pathlib.Path(str(song)) for song in range(count)]
  monkeypatch.setattr(real_baselines, "_files", lambda _: (paths, None))
  monkeypatch.setattr(real_baselines, "_of_audio", lambda *_: {"made": analyse})
  monkeypatch.setattr(
    decode, "audio_blocks", lambda *_, **__: [np.zeros(10, np.float32)]
  )
  return asked


def test_an_interrupted_stage_goes_on_and_keeps_what_it_has(
  folds, analysed, tmp_path
):
  place = folds[0].directory
  with pytest.raises(KeyboardInterrupt):
    real_baselines.make(place, tmp_path)
  assert analysed == list(range(50))
  real_baselines.make(place, tmp_path)
  assert analysed[50:] == list(range(41, 64))  # Kept after every 20 songs.
  rows = np.load(tmp_path / kept_results.VECTORS / "made.npy")
  assert rows[:64].tolist() == [[song] * 3 for song in range(64)]
  assert not rows[64:].any()  # Rendered scores.


def test_what_was_begun_for_as_many_other_songs_is_refused(
  folds, analysed, tmp_path
):
  with pytest.raises(KeyboardInterrupt):
    real_baselines.make(folds[0].directory, tmp_path)
  other = tmp_path / "other"
  shutil.copytree(folds[0].directory, other)
  shutil.rmtree(other / song_store.FILE_NAME)
  made = folds[0].catalogue
  tiny_data.tiny_store(other / song_store.FILE_NAME, made, 64)
  with pytest.raises(errors.InputError, match="made.begun is of other songs"):
    real_baselines.make(other, tmp_path)
  # Nor are finished vectors taken for those of other songs.
  real_baselines.make(folds[0].directory, tmp_path)
  assert kept_results.of_statistics(folds, tmp_path)
  with pytest.raises(errors.InputError, match="MFCC.npy is of other songs"):
    kept_results.of_statistics([dataset.DataSet(other)], tmp_path)
