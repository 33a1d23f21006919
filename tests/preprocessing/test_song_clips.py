"""Tests of preprocessing.sample.song_clips."""

import pathlib

import numpy as np
import pytest
import soundfile

from preprocessing.sample import sample_maker
from preprocessing.sample import song_clips
from preprocessing.sample import synthesis


def test_a_clip_is_the_beginning_of_its_song_and_always_the_same_bytes(
  tmp_path,
):
  time_s = np.arange(30 * synthesis.RATE_HZ) / synthesis.RATE_HZ
  song = (0.5 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)
  paths = [tmp_path / "a" / "1.ogg", tmp_path / "2.ogg"]
  for path in paths:
    song_clips.write(path, song)
  assert paths[0].read_bytes() == paths[1].read_bytes()
  heard, rate_hz = soundfile.read(paths[0])
  seconds = len(heard) / rate_hz
  assert 5 < seconds < 7
  peak = np.abs(np.fft.rfft(heard)).argmax() / seconds
  assert peak == pytest.approx(440, abs=1)
  assert np.abs(heard[-rate_hz // 50 :]).max() < 0.05  # Faded out.


def test_a_clip_may_lie_in_a_folder_with_a_colon(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  place = pathlib.Path("music:v1", "x.ogg")
  song_clips.write(place, np.zeros(1600, np.float32))
  assert place.read_bytes()[:4] == b"OggS"


def test_songs_are_synthesised_with_clips_where_these_are_wanted(tmp_path):
  settings = {"songs": 8, "artists": 2, "playlists": 2, "seconds": 1.5}
  marker = sample_maker.make_sample(
    tmp_path, processes=1, clips=True, fault_share=0, **settings
  )
  songs = {path.stem for path in tmp_path.glob("arena_mel/*/*.npy")}
  clips = {path.stem for path in (tmp_path / "clips").iterdir()}
  assert clips == songs and len(clips) == marker["files"] == 8
