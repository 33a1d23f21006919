"""Tests of what the makers of vectors share: places that can be written."""

import pytest

from pcl_jax.common import errors
from pcl_jax.common import storage
from preprocessing.vectors import genre_words
from preprocessing.vectors import playlist_factors
from tests.support.tiny import tiny_data


@pytest.mark.parametrize(
  "module, make, learn",
  [
    (genre_words, genre_words.make_genre_vectors, "_train"),
    (playlist_factors, playlist_factors.make_playlist_vectors, "_make"),
  ],
)
def test_vectors_that_could_not_be_written_are_not_learned(
  tmp_path, monkeypatch, module, make, learn
):
  tiny_data.tiny_catalogue().save(tmp_path)

  def refuse(path, remedy):
    raise errors.InputError(f"{path} cannot be written: {remedy}.")

  monkeypatch.setattr(storage, "check_writable", refuse)
  monkeypatch.setattr(module, learn, lambda *_, **__: 1 / 0)
  with pytest.raises(errors.InputError, match="you may write to"):
    make(tmp_path)
