"""Tests of pcl_jax.audio.alignment."""

import numpy as np
import pytest

from pcl_jax.audio import alignment
from tests.support import coded_music


def test_one_recording_correlates_whatever_its_cut_and_level_are():
  first, other = coded_music.music(0), coded_music.music(1)
  coded = coded_music.coded(first)  # Without its first 37 frames.
  assert alignment.align(first, first) == (pytest.approx(1), 0)
  for one, two, shift in ((first, coded, 37), (coded, first, -37)):
    found = alignment.align(one, two)
    assert found.correlation > 0.97 and found.shift == shift
  assert alignment.align(first, other).correlation < 0.5


def test_what_does_not_change_or_hardly_overlaps_is_no_copy():
  first, other = coded_music.music(0), coded_music.music(1)
  assert alignment.align(first, np.ones((600, 48))).correlation == 0.0
  assert alignment.align(first, first[:1]).correlation == 0.0
  # The end of one song is the beginning of another.
  long = np.concatenate([first[-100:], other])
  assert alignment.align(first, long).correlation < 0.5


def test_songs_of_different_lengths_go_over_each_other():
  first = coded_music.music(0, frames=1500)
  for begin, end in ((0, 800), (700, 1500), (300, 1200)):
    found = alignment.align(first, first[begin:end])
    assert found == (pytest.approx(1), begin)
    assert alignment.align(first[begin:end], first).shift == -begin


def test_the_beginning_of_a_song_that_grows_louder_is_a_copy_of_it():
  bar, bars = coded_music.music(0, frames=100), []
  for i in range(12):  # It repeats itself, but for some details.
    bars.append(bar + 0.4 * (coded_music.music(i + 1, frames=100) - 2.5))
  gains = np.linspace(1, 4, 12)
  song = np.concatenate([g * b for g, b in zip(gains, bars, strict=True)])
  found = alignment.align(song, song[:600])
  assert found == (pytest.approx(1), 0)
