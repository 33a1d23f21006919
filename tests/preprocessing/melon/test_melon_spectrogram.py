"""Tests of preprocessing.melon.melon_spectrogram."""

import contextlib
import os
import warnings

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from preprocessing.melon import melon_spectrogram
from tests.support.tiny import tiny_melon


def test_every_truncation_of_a_file_is_unreadable(tmp_path):
  np.save(tmp_path / "a.npy", tiny_melon.mel_db(0, frames=2))
  whole = (tmp_path / "a.npy").read_bytes()
  for size in (0, 1, 7, 10, 60, 127, 128, 129, len(whole) - 1):
    (tmp_path / "b.npy").write_bytes(whole[:size])
    with pytest.raises(melon_spectrogram.UnusableFile) as caught:
      melon_spectrogram.read_feature(tmp_path / "b.npy")
    assert caught.value.reason == "unreadable"
    assert str(tmp_path) not in caught.value.detail


@pytest.mark.filterwarnings("ignore")  # numpy's own, of strange headers.
def test_a_flipped_byte_anywhere_in_the_header_never_stops_the_run():
  whole = tiny_melon.npy_bytes(tiny_melon.mel_db(0, frames=2))
  rng = np.random.default_rng(0)
  for place in range(128):
    damaged = bytearray(whole)
    damaged[place] = rng.integers(0, 256)
    with contextlib.suppress(melon_spectrogram.UnusableFile):
      melon_spectrogram.decode(bytes(damaged))


def test_an_npz_archive_under_the_name_of_an_array_is_unreadable(tmp_path):
  np.savez(tmp_path / "a.npz", tiny_melon.mel_db(0))
  (tmp_path / "a.npz").rename(tmp_path / "a.npy")
  with pytest.raises(melon_spectrogram.UnusableFile, match="npz"):
    melon_spectrogram.read_feature(tmp_path / "a.npy")


@pytest.mark.parametrize(
  "change",
  [
    np.asfortranarray,
    lambda db: db.astype(">f4"),
    lambda db: db.astype(">f8"),
    lambda db: np.asfortranarray(db.astype(">f8")),
    lambda db: db.astype(np.longdouble),
  ],
)
def test_memory_order_byte_order_and_wider_types_change_no_bit(change):
  db = tiny_melon.mel_db(0)
  expected = melon_spectrogram.decode(tiny_melon.npy_bytes(db))
  actual = melon_spectrogram.decode(tiny_melon.npy_bytes(change(db)))
  assert actual.dtype == np.float16 and actual.flags.c_contiguous
  assert actual.tobytes() == expected.tobytes()


def test_float16_files_are_the_feature_of_their_rounded_values():
  db = tiny_melon.mel_db(0).astype(np.float16)
  actual = melon_spectrogram.decode(tiny_melon.npy_bytes(db))
  wide = db.astype(np.float32)
  expected = melon_spectrogram.decode(tiny_melon.npy_bytes(wide))
  assert actual.tobytes() == expected.tobytes()


def test_a_header_that_asks_for_terabytes_is_unreadable_at_once():
  whole = tiny_melon.npy_bytes(tiny_melon.mel_db(0, frames=2))
  huge = whole.replace(b"(48, 2), }", b"(48,9**9)}")
  with pytest.raises(melon_spectrogram.UnusableFile):
    melon_spectrogram.decode(huge)
  huge = whole.replace(b"(48, 2), }          ", b"(48, 2000000000000)}")
  with pytest.raises(melon_spectrogram.UnusableFile, match="needs 384000"):
    melon_spectrogram.decode(huge)


def test_a_pipe_in_place_of_a_file_does_not_keep_waiting(tmp_path):
  os.mkfifo(tmp_path / "a.npy")
  with pytest.raises(melon_spectrogram.UnusableFile, match="regular"):
    melon_spectrogram.read_feature(tmp_path / "a.npy")


def test_a_file_too_large_to_be_a_song_is_not_read(tmp_path):
  with open(tmp_path / "a.npy", "wb") as file:
    file.truncate(melon_spectrogram.MAX_FILE_BYTES + 1)  # Takes no room.
  with pytest.raises(melon_spectrogram.UnusableFile) as caught:
    melon_spectrogram.read_feature(tmp_path / "a.npy")
  assert caught.value.reason == "too large"


class _Executed(BaseException):
  """Raised by a pickle that was loaded."""


class _Bomb:
  def __reduce__(self):
    return exec, (
      "from tests.preprocessing.melon import test_melon_spectrogram as t\n"
      "raise t._Executed",
    )


def test_pickles_are_not_executed(tmp_path):
  with open(tmp_path / "a.npy", "wb") as file:
    np.save(file, np.array([_Bomb()] * 48, object), allow_pickle=True)
  data = (tmp_path / "a.npy").read_bytes()
  with pytest.raises(_Executed):  # The bomb is one.
    np.load(tmp_path / "a.npy", allow_pickle=True)
  for some in (data, data[data.index(b"\n") + 1 :]):
    with pytest.raises(melon_spectrogram.UnusableFile) as caught:
      melon_spectrogram.decode(some)
    assert caught.value.reason == "unreadable"


_WHOLE = tiny_melon.npy_bytes(tiny_melon.mel_db(0, frames=2))
_SCRAPS = [
  b"'|O'", b"'>f8'", b"'<f2'", b"'V4'", b"(48,)", b"()", b"(", b"-1", b"True",
  b"9" * 30, b"[('a', '<f4')]", b"\\N{x}", b"\\ud800", b"0x", b"\0", b"\n",
]  # fmt: skip


@hypothesis.given(
  edits=st.lists(
    st.tuples(
      st.integers(0, len(_WHOLE)),
      st.integers(0, 12),
      st.one_of(st.sampled_from(_SCRAPS), st.binary(max_size=12)),
    ),
    max_size=4,
  ),
  size=st.integers(0, 2 * len(_WHOLE)),
)
@hypothesis.settings(deadline=None, max_examples=100)
def test_any_bytes_are_a_feature_or_have_a_reason(edits, size):
  data = _WHOLE
  for place, removed, added in edits:
    data = data[:place] + added + data[place + removed :]
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # numpy's own, of strange headers.
    try:
      feature = melon_spectrogram.decode(data[:size])
    except melon_spectrogram.UnusableFile as error:
      assert error.reason and error.detail.isprintable()
      return
  assert feature.dtype == np.float16 and feature.shape[1] == 48
  assert len(feature) and np.isfinite(feature).all()
