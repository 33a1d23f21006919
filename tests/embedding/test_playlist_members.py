"""Tests of song_queries.find_members: playlists of other machines."""

import dataclasses

import pytest

from pcl_jax.embedding import song_queries
from tests.support.tiny import tiny_table


@pytest.mark.parametrize(
  "roots, members",
  [
    (["/a"], [7]),  # By the name alone: no song lies in a folder.
    (["/a", "/b"], []),  # It could be either.
  ],
)
def test_a_song_of_a_flat_folder_is_found_by_its_name_if_it_is_the_only_one(
  tmp_path, roots, members
):
  table = tiny_table.write(tmp_path / "music.parquet")
  half = len(table.ids) // 2 if len(roots) > 1 else len(table.ids)
  paths = [
    f"{roots[0]}/{i}.mp3" if i < half else f"{roots[1]}/{i - half}.mp3"
    for i in range(len(table.ids))
  ]
  table = dataclasses.replace(
    table, paths=paths, about=table.about | {"roots": roots}
  )
  file = tmp_path / "mine.m3u"
  file.write_text("D:\\Audio\\Mine\\7.mp3\nD:\\Audio\\Mine\\ghost.mp3\n")
  (playlist,) = song_queries._read_playlists(table, file)
  found, missing = song_queries.find_members(table, playlist, tmp_path)
  assert found.tolist() == members
  assert len(missing) == 2 - len(members)
