"""Tests of what python -m pcl_jax.embed refuses before it embeds."""

import pytest

from pcl_jax import embed
from pcl_jax.common import errors
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import embedding_run
from tests.support import music_run
from tests.support import quick_run

_embed = music_run.embed


def test_bad_input_is_refused_in_one_message(made, tmp_path):
  out = tmp_path / "out.parquet"
  (tmp_path / "empty").mkdir()
  for flags, message in {
    f"--audio={tmp_path / 'absent'}": "absent does not exist",
    f"--audio={tmp_path / 'empty'}": "empty has no audio file",
    f"--data={tmp_path / 'empty'}": "not a song store",
  }.items():
    with pytest.raises(errors.InputError, match=message):
      _embed(made, flags, out=out)
  music = f"--audio={made / 'music'}"
  with pytest.raises(errors.InputError, match="not the workdir of a run"):
    embed.main([f"--workdir={tmp_path / 'empty'}", music, f"--out={out}"])
  other = quick_run.save(tmp_path / "other", feature={"mel_bands": 96})
  with pytest.raises(errors.InputError, match="mel_bands: there 96, here 48"):
    embed.main([f"--workdir={other}", music, f"--out={out}"])
  assert not out.exists()


def test_no_paths_are_refused_in_plain_words():
  with pytest.raises(errors.InputError, match="^no paths are given: give"):
    audio_sources.audio_files([])


def test_a_file_that_is_not_ours_is_not_overwritten(made, tmp_path):
  out = tmp_path / "out.parquet"
  out.write_text("precious")
  with pytest.raises(errors.InputError, match="cannot be read as a Parquet"):
    _embed(made, f"--audio={made / 'music'}", out=out)
  assert out.read_text() == "precious"


@pytest.mark.parametrize("flags", [[], ["--force"]])
def test_a_folder_is_refused_as_the_table_before_songs_are_embedded(
  made, tmp_path, monkeypatch, flags
):
  monkeypatch.setattr(embedding_run, "embed_source", lambda *_, **__: 1 / 0)
  with pytest.raises(errors.InputError, match="is (not a file|a folder)"):
    _embed(made, f"--audio={made / 'music'}", *flags, out=tmp_path)
