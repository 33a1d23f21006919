"""Tests of builds that were interrupted: they go on, or say why not."""

import pytest

from pcl_jax.audio import decode
from pcl_jax.common import errors
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from preprocessing.library import library_build
from preprocessing.library import library_store
from tests.support.tiny import tiny_library


def _interrupt(*_):
  raise KeyboardInterrupt


def test_an_interrupted_build_goes_on_to_the_same_store(tmp_path, monkeypatch):
  audio = tiny_library.make(tmp_path / "music")
  (audio / "Artist 1" / "junk.mp3").write_bytes(b"junk" * 100)
  monkeypatch.setattr(library_store, "_COMMIT_SONGS", 4)
  library_build.build_library(audio, tmp_path / "whole", **tiny_library.SMALL)

  calls, read = [], decode.read_feature

  def interrupted(path, *part):
    calls.append(path)
    if len(calls) == 11:
      raise KeyboardInterrupt
    return read(path, *part)

  monkeypatch.setattr(decode, "read_feature", interrupted)
  with pytest.raises(KeyboardInterrupt):
    library_build.build_library(audio, tmp_path / "parts", **tiny_library.SMALL)
  assert not (tmp_path / "parts" / "songs.lmdb").exists()
  library_build.build_library(audio, tmp_path / "parts", **tiny_library.SMALL)
  assert len(set(calls)) == 21 and 21 < len(calls) < 11 + 21
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  assert tiny_library.read_records(
    parts / "songs.lmdb"
  ) == tiny_library.read_records(whole / "songs.lmdb")
  for name in ("skipped.json", "library.json", "catalogue.npz"):
    assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_another_folder_does_not_go_on_with_what_was_begun(
  tmp_path, monkeypatch
):
  one, other = (
    tiny_library.make(tmp_path / "one"),
    tiny_library.make(tmp_path / "other"),
  )
  data = tmp_path / "data"
  with monkeypatch.context() as patch:
    patch.setattr(song_writer.SongWriter, "finish", _interrupt)
    with pytest.raises(KeyboardInterrupt):
      library_build.build_library(one, data, **tiny_library.SMALL)
  with pytest.raises(errors.InputError, match="begun from the folder"):
    library_build.build_library(other, data, **tiny_library.SMALL)
  assert (
    library_build.build_library(one, data, **tiny_library.SMALL)["songs"] == 20
  )


def test_duplicates_are_the_same_after_an_interruption(tmp_path, monkeypatch):
  audio = tiny_library.make(tmp_path / "music")
  for i in range(4):
    content = (audio / "Artist 0" / f"{i}.wav").read_bytes()
    (audio / "Artist 3" / f"again {i}.wav").write_bytes(content)
  monkeypatch.setattr(library_store, "_COMMIT_SONGS", 4)
  library_build.build_library(audio, tmp_path / "whole", **tiny_library.SMALL)
  commit = library_store._commit
  for at in (2, 5):
    count = 0

    def stopping(*args, at=at):
      nonlocal count
      count += 1
      if count == at:
        raise KeyboardInterrupt
      commit(*args)

    monkeypatch.setattr(library_store, "_commit", stopping)
    with pytest.raises(KeyboardInterrupt):
      library_build.build_library(
        audio, tmp_path / "parts", **tiny_library.SMALL
      )
  monkeypatch.setattr(library_store, "_commit", commit)
  library_build.build_library(audio, tmp_path / "parts", **tiny_library.SMALL)
  for name in ("skipped.json", "library.json", "song_files.jsonl"):
    whole, parts = tmp_path / "whole" / name, tmp_path / "parts" / name
    assert parts.read_bytes() == whole.read_bytes()
  report = tiny_library.read_json(tmp_path / "parts" / "library.json")
  assert len(report["duplicates"]) == 4


def test_a_restart_with_another_window_is_refused(tmp_path, monkeypatch):
  audio = tiny_library.make(tmp_path / "music", artists=2)
  data = tmp_path / "data"
  settings = {**tiny_library.SMALL, "from_s": 0.1}
  with monkeypatch.context() as patch:
    patch.setattr(song_writer.SongWriter, "finish", _interrupt)
    with pytest.raises(KeyboardInterrupt):
      library_build.build_library(audio, data, **settings)
  with pytest.raises(errors.InputError, match=r"from_s: there 0\.1, here 0\.0"):
    library_build.build_library(audio, data, **tiny_library.SMALL)
  library_build.build_library(audio, data, **settings)
  with pytest.raises(errors.InputError, match=r"from_s: there 0\.1, here 0\.0"):
    library_build.build_library(audio, data, **tiny_library.SMALL)
  with pytest.raises(errors.InputError, match="to_s: there None, here 0.3"):
    library_build.build_library(audio, data, to_s=0.3, **settings)
  library_build.build_library(audio, data, force=True, **tiny_library.SMALL)
  frames = song_store.SongStore(data / "songs.lmdb").frames
  assert set(frames.tolist()) == {26}
