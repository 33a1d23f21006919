"""Tests of preprocessing.free_music: packages become a data set."""

import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from preprocessing import free_music
from preprocessing.free_packages import music_tree
from preprocessing.library import library_settings
from preprocessing.vectors import playlist_factors
from tests.support.tiny import tiny_library


def test_packages_become_a_data_set(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(
    playlist_factors, "make_playlist_vectors", lambda *_, **__: None
  )
  small = {"min_s": 0.0, "test_share": 0.2}
  for name, value in (small | {"validation_share": 0.2}).items():
    monkeypatch.setitem(library_settings.DEFAULTS, name, value)
  for i in range(20):
    folder = tmp_path / "trees" / ("odd" if i % 2 else "even") / "usr/share/x"
    tags = {"album": "Even Songs", "artist": f"A{i % 4}"} if i < 10 else {}
    tiny_library.write_song(folder / f"{i}.flac", 200.0 + 40 * i, **tags)
  text = "".join(
    f"[[package]]\nname='{name}'\nversion='1'\nsha256='{name}'\nlicence='A'\n"
    for name in ("odd", "even")
  )
  (tmp_path / "list.toml").write_text(text)
  flags = [f"--out={tmp_path / 'data'}", "--threads=2"]
  flags += [f"--unpacked={tmp_path / 'trees'}"]
  flags += [f"--list={tmp_path / 'list.toml'}"]
  free_music.main(flags)
  meta = tiny_library.read_json(tmp_path / "data/kakao_meta/song_meta.json")
  assert {one["album_name"] for one in meta} == {"Even Songs", "even", "odd"}
  untagged = [one for one in meta if one["album_name"] in ("even", "odd")]
  assert len(untagged) == 10
  assert not any(one["artist_id_basket"] for one in untagged)
  assert len(catalogues.load(tmp_path / "data").playlists) == 4
  capsys.readouterr()
  free_music.main(flags)
  assert "nothing to do" in capsys.readouterr().out
  # Another split is refused with the remedy, and made by it.
  with monkeypatch.context() as patch:  # Before anything is downloaded.
    patch.setattr(music_tree, "gather", lambda *_, **__: 1 / 0)
    with pytest.raises(errors.InputError, match="split_by.*with --force"):
      free_music.main([*flags, "--split_by=album"])
    (tmp_path / "sample" / "songs.lmdb").mkdir(parents=True)
    with pytest.raises(errors.InputError, match="not made of audio files"):
      free_music.main([f"--out={tmp_path / 'sample'}", *flags[1:]])
  free_music.main([*flags, "--split_by=album", "--force"])
  data = catalogues.load(tmp_path / "data")
  for album in set(data.albums.tolist()):
    assert len(set(data.split[data.albums == album].tolist())) == 1
