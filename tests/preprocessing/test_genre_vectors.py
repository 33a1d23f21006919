"""Tests of vectors.genre_words: rows, reproducibility, messages."""

import dataclasses
import json
import os
import subprocess
import sys

from gensim.models import word2vec
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from preprocessing import genre_vectors
from preprocessing.vectors import genre_words
from tests.support.tiny import tiny_data

DIMS = 8


def saved(folder, catalogue=None):
  (catalogue or tiny_data.tiny_catalogue()).save(folder)
  return folder


def made(folder, **options):
  path = genre_words.make_genre_vectors(folder, **{"dims": DIMS} | options)
  return np.load(path)


def with_genres(catalogue, lists):
  genres = ragged.Ragged.from_lists(lists)
  return dataclasses.replace(catalogue, genres=genres)


def test_row_c_is_word2vec_of_code_c_and_row_0_is_zero(tmp_path):
  catalogue = tiny_data.tiny_catalogue()
  vectors = made(saved(tmp_path), seed=3)
  sentences = [
    [str(code) for code in catalogue.genres[i]]
    for i in range(len(catalogue))
    if catalogue.split[i] != catalogues.TEST
  ]
  words = word2vec.Word2Vec(
    sentences, vector_size=DIMS, window=3, min_count=1, workers=1, seed=3
  ).wv
  codes = len(catalogue.genre_codes)
  assert vectors.shape == (codes + 1, DIMS)
  assert vectors.dtype == np.float32
  np.testing.assert_array_equal(vectors[0], 0.0)
  for code in range(1, codes + 1):
    np.testing.assert_array_equal(vectors[code], words[str(code)])


def test_codes_of_test_songs_alone_keep_a_random_row_and_are_counted(
  tmp_path, capsys
):
  catalogue = tiny_data.tiny_catalogue()
  is_test = catalogue.split == catalogues.TEST
  lists = [
    [12] if is_test[i] else [int(c) for c in catalogue.genres[i] if c != 12]
    for i in range(len(catalogue))
  ]
  vectors = made(saved(tmp_path, with_genres(catalogue, lists)))
  assert 0 < np.abs(vectors[12]).max() <= 0.5 / DIMS
  counts = json.loads((tmp_path / "genre_vectors.json").read_text())["counts"]
  assert counts["codes_without_song"] == 1
  assert "1 of 12 codes" in capsys.readouterr().out


@pytest.mark.long
def test_the_same_bits_come_out_under_any_hash_seed(tmp_path):
  vectors = made(saved(tmp_path))
  other = tmp_path / "other"
  other.mkdir()
  saved(other)
  command = [sys.executable, "-m", "preprocessing.genre_vectors"]
  hash_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
  subprocess.run(
    [*command, f"--data={other}", f"--dims={DIMS}"],
    check=True,
    capture_output=True,
    env={**os.environ, "PYTHONHASHSEED": hash_seed},
  )
  np.testing.assert_array_equal(np.load(other / "genre_vectors.npy"), vectors)


def test_finished_vectors_are_kept_and_others_refused(tmp_path, capsys):
  folder = saved(tmp_path)
  first = made(folder)
  before = (folder / "genre_vectors.npy").stat().st_mtime_ns
  np.testing.assert_array_equal(made(folder), first)
  assert "nothing to do" in capsys.readouterr().out
  assert (folder / "genre_vectors.npy").stat().st_mtime_ns == before
  with pytest.raises(errors.InputError, match="dims: there 8, here 4.*--force"):
    made(folder, dims=4)
  assert made(folder, dims=4, force=True).shape[1] == 4
  tiny_data.tiny_catalogue(seed=1).save(folder)
  with pytest.raises(errors.InputError, match="genres_sha256"):
    made(folder, dims=4)


def test_a_library_without_genres_is_told_what_needs_them(tmp_path):
  catalogue = tiny_data.tiny_catalogue()
  without = with_genres(catalogue, [[] for _ in range(len(catalogue))])
  with pytest.raises(errors.InputError, match="`genre_w2v` in contrast_combos"):
    made(saved(tmp_path, without))


@pytest.mark.parametrize("options", [{"dims": 0}, {"epochs": 0}, {"seed": -1}])
def test_bad_options_are_named(tmp_path, options):
  ((name, value),) = options.items()
  with pytest.raises(errors.InputError, match=f"--{name}={value}"):
    made(saved(tmp_path), **options)


def test_the_command_passes_its_flags_on(tmp_path):
  folder = saved(tmp_path)
  genre_vectors.main([f"--data={folder}", "--dims=4", "--epochs=2", "--seed=5"])
  report = json.loads((folder / "genre_vectors.json").read_text())
  flags = ("dims", "epochs", "seed")
  assert [report["settings"][flag] for flag in flags] == [4, 2, 5]
