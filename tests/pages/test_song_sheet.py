"""Tests of pcl_jax.pages.song_sheet."""

import dataclasses
import json
import os
import pathlib
from urllib import parse

import pytest

from pcl_jax.data import dataset
from pcl_jax.data import ragged
from pcl_jax.library import music_files
from pcl_jax.pages import song_sheet
from tests.support.tiny import tiny_run


@pytest.fixture
def data(tmp_path) -> dataset.DataSet:
  return dataset.DataSet(tiny_run.make_data_set(tmp_path / "data"))


def _opened(link: str, page: pathlib.Path) -> bytes:
  path = os.path.join(os.fsencode(page.parent), parse.unquote_to_bytes(link))
  with open(path, "rb") as file:
    return file.read()


def test_files_of_a_library_are_addressed_from_the_page(data, tmp_path):
  ids = data.catalogue.song_ids[:3].tolist()
  names = ["Artist/100% #1?.mp3", "caf\udce9 <b>.ogg", "gone.flac"]
  music = tmp_path / "music"
  (music / "Artist").mkdir(parents=True)
  for name in names[:2]:
    (music / name).write_bytes(os.fsencode(name))
  content = {"audio_dir": str(music), "ids": dict(zip(names, ids, strict=True))}
  (data.directory / music_files.IDS).write_text(json.dumps(content))
  page = tmp_path / "pages" / "out.html"
  page.parent.mkdir()
  links = song_sheet.audio_links(data, None, page)
  assert links[2:] == [""] * 58
  for name, link in zip(names[:2], links, strict=False):
    assert _opened(link, page) == os.fsencode(name)
    assert not set(link) & set("<>#?\"' ")
  moved = music.rename(tmp_path / "moved")
  assert song_sheet.audio_links(data, None, page) == [""] * 60
  links = song_sheet.audio_links(data, moved, page)
  assert _opened(links[0], page) == os.fsencode(names[0])
  sheet = song_sheet.read(data)
  assert sheet.names[1] == "caf\\xe9 <b>.ogg"


def test_files_that_are_named_by_ids_are_found_in_any_folder(data, tmp_path):
  ids = data.catalogue.song_ids.tolist()
  clips = data.directory / "melon" / "clips"
  (clips / "more").mkdir(parents=True)
  (clips / f"{ids[0]}.ogg").write_bytes(b"0")
  (clips / "more" / f"{ids[5]}.flac").write_bytes(b"5")
  page = tmp_path / "out.html"
  links = song_sheet.audio_links(data, None, page)
  assert [i for i, link in enumerate(links) if link] == [0, 5]
  assert _opened(links[5], page) == b"5"
  assert song_sheet.audio_links(data, clips / "more", page)[0] == ""


def test_songs_without_metadata_are_named_by_their_numbers(data):
  sheet = song_sheet.read(data)
  assert sheet.names[3] == f"song {sheet.ids[3]}"
  assert all(one.startswith("artist ") for one in sheet.artists[3])
  assert sheet.playlist_names[3] == "playlist 3"
  made = data.catalogue
  for row in (0, 7):
    expected = [
      i for i in range(len(made.playlists)) if row in made.playlists[i]
    ]
    assert sheet.playlists[row] == expected


def test_songs_share_an_artist_where_the_look_up_counts_one(data, monkeypatch):
  made, lists = data.catalogue, [[4, 9], [9], [], [4, 2], [2], [7, 5], [5]]
  lists += [[]] * (len(made) - len(lists))
  artists = ragged.Ragged.from_lists(lists)
  monkeypatch.setattr(
    data, "catalogue", dataclasses.replace(made, artists=artists)
  )
  # Artists 2 and 9 have one name, 2 has two, and a song lacks a name.
  names = [["Ann", "Bob"], ["Bob"], [], ["Ann", "Bob"], ["Cid"], ["?"], ["Eve"]]
  content = [
    {"id": number, "artist_name_basket": some}
    for number, some in zip(made.song_ids.tolist(), names, strict=False)
  ]
  folder = data.directory / "kakao_meta"
  folder.mkdir()
  (folder / "song_meta.json").write_text(json.dumps(content))
  found = song_sheet.read(data).artists
  for one in range(len(names)):
    for other in range(len(names)):
      counted = bool(set(lists[one]) & set(lists[other]))
      assert bool(set(found[one]) & set(found[other])) == counted
  assert found[:3] == [["Ann", "Bob (artist 9)"], ["Bob (artist 9)"], []]
  assert found[5:7] == [["artist 7", "Eve"], ["Eve"]]
