"""Tests that any metadata file is read whole or refused by name."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from pcl_jax.common import errors
from preprocessing.melon import melon_meta
from tests.support.tiny import tiny_melon

_JSON = st.recursive(
  st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["id", "songs", "GN0100", "\ud800", "\x00"]),
  ),
  lambda inner: st.one_of(
    st.lists(inner, max_size=4),
    st.dictionaries(
      st.sampled_from(["id", "_id", "songs", "album_id", "artist_id_basket"]),
      inner,
      max_size=3,
    ),
  ),
  max_leaves=8,
)
_FIELDS = st.sampled_from(
  [
    "id",
    "artist_id_basket",
    "album_id",
    "song_gn_gnr_basket",
    "song_gn_dtl_gnr_basket",
  ]
)


def _read(folder):
  """Reads all files; returns nothing where one is refused by its name."""
  try:
    songs = melon_meta.read_songs(folder)
    return songs, melon_meta.read_playlists(folder, songs, unknown_songs="drop")
  except errors.InputError as error:
    assert str(folder) in str(error)
    assert any(name in str(error) for name in ("song_meta", "train", "val"))
    return None


@settings(max_examples=40, deadline=None)
@given(place=st.integers(0, 9), field=_FIELDS, value=_JSON)
def test_a_song_with_any_field_is_taken_or_refused(
  tmp_path_factory, place, field, value
):
  folder = tmp_path_factory.getbasetemp() / "fuzz_songs"
  folder.mkdir(exist_ok=True)
  songs = [tiny_melon.song(i) for i in range(10)]
  songs[place][field] = value
  tiny_melon.write_meta(folder, songs, train=[tiny_melon.playlist(1, [0, 3])])
  found = _read(folder)
  if found is not None:
    assert len(found[0].ids) == len(songs)
    assert len(found[0].artists) == len(found[0].genres) == len(songs)


@settings(max_examples=40, deadline=None)
@given(records=st.lists(_JSON, max_size=3), members=_JSON)
def test_playlists_of_anything_are_taken_or_refused(
  tmp_path_factory, records, members
):
  folder = tmp_path_factory.getbasetemp() / "fuzz_playlists"
  folder.mkdir(exist_ok=True)
  playlists = [*records, {"id": 5, "songs": members}]
  tiny_melon.write_meta(
    folder, [tiny_melon.song(i) for i in range(4)], train=playlists
  )
  found = _read(folder)
  if found is not None:
    made = found[1]
    assert len(made.songs) == len(playlists)
    entries = sum(len(one["songs"]) for one in playlists)
    assert len(made.songs.values) + made.num_unknown == entries
    assert (np.diff(made.songs.offsets) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(
  content=st.one_of(st.binary(max_size=40), st.text(max_size=40)),
  cut=st.integers(0, 400),
)
def test_bytes_of_any_kind_are_refused_or_read(tmp_path_factory, content, cut):
  folder = tmp_path_factory.getbasetemp() / "fuzz_bytes"
  folder.mkdir(exist_ok=True)
  tiny_melon.write_meta(
    folder, [tiny_melon.song(i) for i in range(3)], train=[]
  )
  if isinstance(content, str):
    content = content.encode("utf-8", "surrogatepass")
  path = folder / "song_meta.json"
  whole = path.read_bytes()
  for spoiled in (content, whole[:cut] + content + whole[cut:], whole[:cut]):
    path.write_bytes(spoiled)
    _read(folder)


@pytest.mark.parametrize(
  "text", ["[" * 200_000, "[" + "9" * 10_000 + "]", '{"a":' * 100_000]
)
def test_endless_nesting_and_numbers_are_refused(tmp_path, text):
  (tmp_path / "song_meta.json").write_text(text)
  with pytest.raises(errors.InputError, match="song_meta.json"):
    melon_meta.read_songs(tmp_path)
