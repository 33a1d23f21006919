"""Tests of preprocessing.rendered_scores: scores become a data set."""

import numpy as np
import pytest
import soundfile

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from preprocessing import rendered_scores
from preprocessing.library import library_settings
from preprocessing.scores import rendering
from preprocessing.scores import score_choice
from preprocessing.scores import score_notes
from preprocessing.vectors import playlist_factors
from tests.support.tiny import tiny_library


def test_scores_become_a_data_set(tmp_path, monkeypatch, capsys):
  def play(_midi, _soundfont, work):
    noise = np.random.default_rng(len(made)).normal(0, 0.1, 8000)
    made.append(work)
    soundfile.write(work / "score.flac", noise, 16_000)
    return work / "score.flac"

  made = []
  notes = score_notes.Notes([[score_notes.Note(0.0, 1.0, 60)]])
  monkeypatch.setattr(score_choice, "corpus_folder", lambda: tmp_path)
  monkeypatch.setattr(rendering, "find_soundfont", lambda path: path)
  monkeypatch.setattr(rendering, "play", play)
  monkeypatch.setattr(score_notes, "read", lambda _: notes)
  monkeypatch.setattr(
    playlist_factors, "make_playlist_vectors", lambda *_, **__: None
  )
  small = {"min_s": 0.0, "test_share": 0.2, "validation_share": 0.2}
  for name, value in small.items():
    monkeypatch.setitem(library_settings.DEFAULTS, name, value)
  for i in range(30):
    path = tmp_path / f"composer{i % 3}/work{i % 6}.{i}.krn"
    path.parent.mkdir(exist_ok=True)
    path.touch()
  font, data = tmp_path / "a.sf2", tmp_path / "data"
  font.touch()
  flags = [f"--out={data}", f"--soundfont={font}", "--scores=20"]
  rendered_scores.main([*flags, "--processes=1"])
  assert "scores: 20 rendered" in capsys.readouterr().out
  meta = tiny_library.read_json(data / "kakao_meta/song_meta.json")
  artists = {one["artist_name_basket"][0] for one in meta}
  assert artists == {"composer0", "composer1", "composer2"}
  assert len({one["album_name"] for one in meta}) == 6
  assert len(meta) == 20 and len(catalogues.load(data).playlists) == 6
  with monkeypatch.context() as patch:  # Before an hour of rendering.
    patch.setattr(rendering, "render_all", lambda *_, **__: 1 / 0)
    with pytest.raises(errors.InputError, match="split_by.*with --force"):
      rendered_scores.main([*flags, "--split_by=album"])
