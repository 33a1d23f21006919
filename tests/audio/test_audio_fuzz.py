"""Whatever an audio file holds, it is read or refused in words."""

from collections.abc import Callable
import pathlib
import tempfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import soundfile

from pcl_jax.audio import decode
from pcl_jax.library import audio_tags
from tests.support import encoded_audio
from tests.support import sound_kinds

_SNDFILE = ("wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64")
_SUFFIXES = (*_SNDFILE, "m4a", "wma", "wv", "mka")
_SAMPLES, _RATE_HZ = 9000, 16_000
_HEADER_BYTES = 64  # Half of the edits are made here: most is decided there.
_QUICK, _LONG = 12, 300

_places = st.integers(0, _HEADER_BYTES) | st.integers(0, 1 << 16)
_edits = st.one_of(
  st.tuples(st.just("flip"), _places, st.integers(1, 255)),
  st.tuples(st.just("put in"), _places, st.binary(min_size=1, max_size=40)),
  st.tuples(st.just("take out"), _places, st.integers(1, 400)),
  st.tuples(st.just("cut off"), _places, st.none()),
  st.tuples(st.just("overwrite"), _places, st.binary(min_size=1, max_size=40)),
)


def _mutated(content: bytes, edits: list[tuple]) -> bytes:
  """Applies edits; places wrap around at the end of what is there."""
  data = bytearray(content)
  for kind, place, value in edits:
    place %= len(data) + 1
    if kind == "flip" and place < len(data):
      data[place] ^= value
    elif kind == "put in":
      data[place:place] = value
    elif kind == "take out":
      del data[place : place + value]
    elif kind == "cut off":
      del data[place:]
    elif kind == "overwrite":
      data[place : place + len(value)] = value
  return bytes(data)


def _fuzzed(examples: int, edits: st.SearchStrategy | None = None) -> Callable:
  """Returns a decorator: so many examples, others each time where many."""
  settings = hypothesis.settings(
    max_examples=examples,
    deadline=None,
    database=None,
    derandomize=examples < _LONG,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  if edits is None:
    edits = st.lists(_edits, max_size=4)
  given = hypothesis.given(edits=edits)
  return lambda test: settings(given(test))


@pytest.fixture(scope="module")
def songs() -> dict[str, bytes]:
  """The bytes of a short song in every format."""
  made = {}
  with tempfile.TemporaryDirectory() as folder:
    audio = np.random.default_rng(0).normal(0, 0.1, (_SAMPLES, 2))
    for suffix in _SUFFIXES:
      path = pathlib.Path(folder) / f"a.{suffix}"
      if suffix in _SNDFILE:
        soundfile.write(path, audio, _RATE_HZ)
      else:
        encoded_audio.write(path, audio.astype(np.float32), _RATE_HZ)
      made[suffix] = path.read_bytes()
  return made


def _check(content: bytes, suffix: str) -> bool:
  """Reads a file, or what is wrong with it; returns whether it was read."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f"a.{suffix}"
    path.write_bytes(content)
    audio_tags.read_tags(path)
    try:
      feature = decode.read_feature(path)
    except decode.UnreadableAudio as error:
      assert error.reason and path.name in str(error)
      assert "\n" not in error.reason
      return False
    assert feature.dtype == np.float16 and feature.shape[1] == 48
    assert len(feature) and np.isfinite(feature).all()
    return True


@pytest.mark.parametrize("suffix", _SUFFIXES)
def test_what_is_mutated_can_be_read(songs, suffix):
  assert _check(songs[suffix], suffix)
  assert _mutated(songs[suffix], []) == songs[suffix]


@pytest.mark.parametrize("suffix", _SUFFIXES)
@_fuzzed(_QUICK)
def test_a_damaged_song_is_read_or_refused(songs, suffix, edits):
  _check(_mutated(songs[suffix], edits), suffix)


@pytest.mark.long
@pytest.mark.parametrize("suffix", _SUFFIXES)
@_fuzzed(_LONG)
def test_many_damaged_songs_are_read_or_refused(songs, suffix, edits):
  _check(_mutated(songs[suffix], edits), suffix)


@pytest.fixture(scope="module")
def whole_songs(tmp_path_factory) -> dict[str, bytes]:
  """The bytes of 1.8 s in every format that states its length for certain."""
  folder = tmp_path_factory.mktemp("whole")
  return {
    suffix: sound_kinds.Kinds(folder, suffix).first
    for suffix, form in sound_kinds.FORMATS.items()
    if form.own_length
  }


_STATED = [one for one, form in sound_kinds.FORMATS.items() if form.own_length]
_late_edits = st.lists(
  st.tuples(
    st.sampled_from(["flip", "take out", "cut off"]),
    st.floats(0.5, 1.0),
    st.integers(1, 255),
  ),
  max_size=3,
)


def _check_told(content: bytes, suffix: str, edits: list[tuple]) -> None:
  """Damages the second half of a song; what is lost has to be told."""
  places = [(kind, int(at * len(content)), by) for kind, at, by in edits]
  told: list[str] = []
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f"a.{suffix}"
    path.write_bytes(_mutated(content, places))
    try:
      blocks = decode.audio_blocks(path, warn=lambda _, why: told.append(why))
      length_s = sum(map(len, blocks)) / 16_000
    except decode.UnreadableAudio:
      return
  assert told or length_s > sound_kinds.SECONDS[0] - 0.11


@pytest.mark.parametrize("suffix", _STATED)
@_fuzzed(_QUICK, _late_edits)
def test_what_damage_takes_is_told(whole_songs, suffix, edits):
  _check_told(whole_songs[suffix], suffix, edits)


@pytest.mark.long
@pytest.mark.parametrize("suffix", _STATED)
@_fuzzed(_LONG, _late_edits)
def test_what_much_damage_takes_is_told(whole_songs, suffix, edits):
  _check_told(whole_songs[suffix], suffix, edits)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a"])
@hypothesis.settings(
  max_examples=_QUICK,
  deadline=None,
  database=None,
  derandomize=True,
  suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(content=st.binary(max_size=3000))
def test_any_bytes_are_read_or_refused(suffix, content):
  _check(content, suffix)
