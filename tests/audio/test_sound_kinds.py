"""Files of every kind and format are read right, or what they lack is told."""

import itertools

import numpy as np
import pytest
import soxr

from pcl_jax.audio import decode
from tests.support.audio_files import sound_kinds

RATE_HZ = 16_000
_SHORT = "wav flac mp3 ogg opus m4a aac aiff w64 wv wma mka".split()
_APART_S = 0.1  # Encoders put so much in front of a song and behind it.
# Kinds that these formats cannot have: a tag in front is junk to them, or their
# headers cannot say that a length is not known.
_NOT = {
  "streamed": "aiff w64 caf",
  "streamed_joined": "aiff w64 caf",
  "tag_in_front": "ogg opus m4a wma mka webm wav aiff au caf w64 wv",
  "tags_between": "ogg opus m4a wma mka webm wav aiff au caf w64 wv tta flac",
}
# Of which a part is gone: read, told or refused.
_INEXACT = ("cut_in_half", "cut_a_little", "taken_out", "junk_put_in", "hole")


def _cells():
  """Yields formats and kinds; those of two formats of each kind are short.

  Which two goes round, so that each format has several kinds.
  """
  for number, kind in enumerate(sound_kinds.KINDS):
    cannot = _NOT.get(kind, "").split()
    usual = [suffix for suffix in _SHORT if suffix not in cannot]
    first, second = number, number + len(usual) // 2
    short = {usual[place % len(usual)] for place in (first, second)}
    for suffix in sound_kinds.FORMATS:
      if suffix not in cannot:
        marks = () if suffix in short else pytest.mark.long
        yield pytest.param(suffix, kind, marks=marks)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
  """Makes files, with the songs of a format encoded once."""
  known = {}

  def of(suffix):
    if suffix not in known:
      folder = tmp_path_factory.mktemp(suffix)
      known[suffix] = sound_kinds.Kinds(folder, suffix)
    return known[suffix]

  return of


def _expected(holds):
  """Returns the sound that a file holds, at 16 kHz, and where parts begin."""
  pieces = []
  for number, from_s, to_s in holds:
    if number < 0:
      pieces.append(np.zeros(round((to_s - from_s) * RATE_HZ)))
      continue
    whole = sound_kinds.song(number, to_s).mean(axis=1)
    part = soxr.resample(whole, sound_kinds.RATE_HZ, RATE_HZ)
    pieces.append(part[round(from_s * RATE_HZ) :])
  return pieces


def _likeness(found, piece, place, reach_s):
  """Returns the largest correlation of a piece near where it should begin."""
  inner = piece[1600:-1600]
  reach = round(reach_s * RATE_HZ)
  begin = max(place + 1600 - reach, 0)
  there = found[begin : place + 1600 + len(inner) + reach]
  if len(there) < len(inner):
    return 0.0
  size = 1 << (len(there) + len(inner)).bit_length()
  products = np.fft.irfft(
    np.fft.rfft(there, size) * np.conj(np.fft.rfft(inner, size)), size
  )[: len(there) - len(inner) + 1]
  sums = np.concatenate([[0.0], np.cumsum(there**2)])
  power = sums[len(inner) :] - sums[: -len(inner)]
  return float((products / np.sqrt(power * (inner**2).sum() + 1e-9)).max())


@pytest.mark.parametrize("suffix, kind", list(_cells()))
def test_a_file_is_read_right_or_what_it_lacks_is_told(
  kinds, tmp_path, suffix, kind
):
  case = getattr(kinds(suffix), kind)()
  path = tmp_path / f"a.{suffix}"
  path.write_bytes(case.content)
  told: list[str] = []
  try:
    blocks = decode.audio_blocks(
      path, warn=lambda _, reason: told.append(reason)
    )
    found = np.concatenate(list(blocks)).astype(np.float64)
  except decode.UnreadableAudio as error:
    assert not case.holds or case.is_told or kind in _INEXACT, error
    assert error.reason and "\n" not in error.reason
    return
  assert case.holds, "noise was taken for sound"
  pieces = _expected(case.holds)
  apart_s = abs(len(found) - sum(map(len, pieces))) / RATE_HZ
  allowed_s = _APART_S * len(pieces) + (0.2 if kind in _INEXACT else 0.0)
  assert told or apart_s <= allowed_s, f"{apart_s:.2f} s, silently"
  if kind in _INEXACT or case.is_told:
    return
  place = 0
  for number, piece in enumerate(pieces, 1):
    if piece.any():
      assert _likeness(found, piece, place, _APART_S * number) > 0.9
    place += len(piece)


@pytest.mark.parametrize(
  "suffix, kind",
  [
    pytest.param(*cell, marks=() if i % 4 == 0 else pytest.mark.long)
    for i, cell in enumerate(
      itertools.product(_SHORT, ("plain", "joined", "quiet_beginning"))
    )
  ],
)
def test_a_part_is_that_of_the_decoded_whole(kinds, tmp_path, suffix, kind):
  path = tmp_path / f"a.{suffix}"
  path.write_bytes(getattr(kinds(suffix), kind)().content)
  whole = np.concatenate(list(decode.audio_blocks(path)))
  for from_s, to_s in ((0.2, 0.5), (1.3, 1.6), (1.5, None)):
    part = np.concatenate(list(decode.audio_blocks(path, from_s, to_s)))
    end = None if to_s is None else round(to_s * RATE_HZ)
    expected = whole[round(from_s * RATE_HZ) : end]
    assert abs(len(part) - len(expected)) <= 1
    inner = slice(200, min(len(part), len(expected)) - 200)
    np.testing.assert_allclose(part[inner], expected[inner], atol=2e-3)
