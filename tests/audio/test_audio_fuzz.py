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
from tests.support.audio_files import encoded_audio
from tests.support.audio_files import sound_kinds

_SNDFILE = ("wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64")
_SUFFIXES = (*_SNDFILE, "m4a", "wma", "wv", "mka")
_SAMPLES, _RATE_HZ = 9000, 16_000
_HEADER_BYTES = 64  # Half of the edits are made here: most is decided there.
_QUICK, _LONG = 4, 300
_HANGS_MS = 10_000  # A thousand times what a file takes.

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


def _fuzzed(examples: int, **drawn: st.SearchStrategy) -> Callable:
  """Returns a decorator: so many examples, others each time where many."""
  settings = hypothesis.settings(
    max_examples=examples,
    deadline=None if examples < _LONG else _HANGS_MS,
    database=None,
    derandomize=examples < _LONG,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  given = hypothesis.given(**drawn)
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
@_fuzzed(_QUICK, edits=st.lists(_edits, max_size=4))
def test_a_damaged_song_is_read_or_refused(songs, suffix, edits):
  _check(_mutated(songs[suffix], edits), suffix)


@pytest.mark.long
@pytest.mark.parametrize("suffix", _SUFFIXES)
@_fuzzed(_LONG, edits=st.lists(_edits, max_size=4))
def test_many_damaged_songs_are_read_or_refused(songs, suffix, edits):
  _check(_mutated(songs[suffix], edits), suffix)


_STATED = [one for one, form in sound_kinds.FORMATS.items() if form.own_length]
_LOST_S = 0.11  # More of a song must not be lost silently.
_late = st.floats(0.5, 1.0)  # So that headers stay as they are.
_late_edits = st.one_of(
  st.tuples(
    st.sampled_from(["flip", "take out", "cut off"]), _late, st.integers(1, 255)
  ),
  st.tuples(  # A splice: of which song, from where, how many bytes.
    st.sampled_from(["put in", "overwrite"]),
    _late,
    st.tuples(st.integers(0, 2), st.floats(0.0, 1.0), st.integers(1, 5000)),
  ),
)
# Songs one behind the other, and what has become of each.
_joins = st.lists(
  st.tuples(st.integers(0, 2), st.lists(_late_edits, max_size=2)),
  min_size=1,
  max_size=3,
)


class _Songs(list[tuple[bytes, float]]):
  """Which are not printed where a test fails."""

  def __repr__(self) -> str:
    return f"{len(self)} songs"


@pytest.fixture(scope="module")
def whole_songs(tmp_path_factory) -> dict[str, _Songs]:
  """Songs and their seconds in every format that states a length for certain.

  They are two of two channels and one of one.
  """
  folder = tmp_path_factory.mktemp("whole")
  made = {}
  for suffix in _STATED:
    kinds = sound_kinds.Kinds(folder, suffix)
    songs = (kinds.first, kinds.second, kinds.mono().content)
    of = (0, 1, 0)
    made[suffix] = _Songs(
      (songs[k], sound_kinds.SECONDS[of[k]]) for k in range(3)
    )
  return made


def _spliced(songs: list[tuple[bytes, float]], edits: list[tuple]) -> list:
  """Returns edits with the bytes that are put in."""
  found = []
  for kind, at, value in edits:
    if isinstance(value, tuple):
      of, begin, size = value
      content = songs[of][0]
      place = int(begin * len(content))
      value = content[place : place + size] or content[:1]
    found.append((kind, at, value))
  return found


def _ends_between_pages(content: bytes) -> bool:
  """Returns whether Ogg ends before a page, as if it had no more of them."""
  page = content[content.rfind(b"OggS\0") :]
  sizes = page[27 : 27 + page[26]] if len(page) > 26 else b""
  return not page[5:6] >= b"\4" and len(page) == 27 + len(sizes) + sum(sizes)


def _check_told(
  songs: list[tuple[bytes, float]], suffix: str, joins: list[tuple]
) -> None:
  """Joins songs whose second half is damaged; what is lost has to be told."""
  parts, whole_s = [], 0.0
  for of, edits in joins:
    content, seconds = songs[of]
    for kind, at, value in _spliced(songs, edits):
      content = _mutated(content, [(kind, int(at * len(content)), value)])
    parts.append(content)
    whole_s += seconds
  if any(map(_ends_between_pages, parts)):
    return
  told: list[str] = []
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f"a.{suffix}"
    path.write_bytes(b"".join(parts))
    try:
      blocks = decode.audio_blocks(path, warn=lambda _, why: told.append(why))
      length_s = sum(map(len, blocks)) / 16_000
    except decode.UnreadableAudio:
      return
  assert told or length_s > whole_s - _LOST_S * len(parts)


@pytest.mark.parametrize("suffix", _STATED)
@_fuzzed(_QUICK, joins=_joins)
def test_what_damage_takes_is_told(whole_songs, suffix, joins):
  _check_told(whole_songs[suffix], suffix, joins)


@pytest.mark.long
@pytest.mark.parametrize("suffix", _STATED)
@_fuzzed(_LONG, joins=_joins)
def test_what_much_damage_takes_is_told(whole_songs, suffix, joins):
  _check_told(whole_songs[suffix], suffix, joins)


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
