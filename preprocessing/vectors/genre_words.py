"""Makes the vectors of mode G: word2vec of the genre codes."""

import os
import pathlib
from typing import Any
import zlib

import numpy as np
import tqdm

from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import vector_sources
from preprocessing.vectors import vector_files

FILE_NAME = dataset.GENRE_VECTORS


def _read_sentences(
  catalogue: catalogues.Catalogue, data_dir: pathlib.Path
) -> list[list[str]]:
  """Returns the codes of each training or validation song that has some."""
  rows = np.flatnonzero(catalogue.learned)
  codes = (catalogue.genres[row].tolist() for row in rows.tolist())
  sentences = [list(map(str, one)) for one in codes if one]
  if not sentences:
    raise vector_files.NothingToLearn(
      f"{data_dir / catalogues.FILE_NAME} has {len(catalogue.genre_codes)} "
      f"genre codes and none of its {len(rows)} training and validation songs "
      "has one. Mode G (strategies with `genre_w2v` in contrast_combos) needs "
      "genres. Supply them: for Melon, song_gn_gnr_basket and "
      "song_gn_dtl_gnr_basket in song_meta.json; for your own library, genre "
      "tags in the audio files, then preprocessing.own_library again with "
      "--force. Or train a strategy without `genre_w2v`."
    )
  return sentences


def _train(
  sentences: list[list[str]], dims: int, epochs: int, seed: int
) -> Any:
  """Trains word2vec with gensim's defaults (CBOW, 5 negatives, rate 0.025)."""
  # Takes seconds to import, and every training run imports this module.
  from gensim.models import callbacks
  from gensim.models import word2vec

  class Progress(callbacks.CallbackAny2Vec):
    def on_epoch_end(self, model: word2vec.Word2Vec) -> None:
      bar.update()

  with tqdm.tqdm(total=epochs, desc="genre vectors", unit="epoch") as bar:
    return word2vec.Word2Vec(
      sentences,
      vector_size=dims,
      window=max(map(len, sentences)),
      min_count=1,
      # One thread and a hash that is the same in every process: the same bits.
      workers=1,
      hashfxn=lambda word: zlib.crc32(str(word).encode()),
      seed=seed,
      epochs=epochs,
      callbacks=[Progress()],
    )


def make_genre_vectors(
  data_dir: str | os.PathLike[str],
  *,
  dims: int = 128,
  epochs: int = 5,
  seed: int = 0,
  force: bool = False,
) -> pathlib.Path:
  """Makes genre_vectors.npy and .json of a data set.

  Args:
    data_dir: the data set's folder, with a catalogue in it.
    dims: the size of a vector.
    epochs: how often word2vec sees each song.
    seed: the seed of initial vectors and draws.
    force: replaces vectors made with other settings.

  Returns:
    Path of the vectors, float32 [codes + 1, dims]. Vectors made with the same
    settings from the same genres are left as they are.

  Raises:
    InputError: an option is bad; there is no catalogue or no genre in it;
      vectors made with other settings are there.
  """
  options = {"dims": dims, "epochs": epochs}
  vector_files.check_options("genre_vectors", options, seed)
  data_dir = pathlib.Path(data_dir)
  path = data_dir / FILE_NAME
  catalogue = catalogues.load(data_dir)
  sentences = _read_sentences(catalogue, data_dir)
  settings = {**options, "seed": seed}
  settings |= vector_sources.of_genre_vectors(catalogue)
  if not force and vector_files.is_finished(path, settings):
    return path
  remedy = "give a copy of the data set that you may write to"
  storage.check_writable(path, remedy)
  words = _train(sentences, dims, epochs, seed).wv
  codes = len(catalogue.genre_codes)
  draws = np.random.default_rng(seed).random((codes + 1, dims))
  vectors = ((draws - 0.5) / dims).astype(np.float32)
  vectors[0] = 0.0
  vectors[[int(word) for word in words.index_to_key]] = words.vectors
  counts = {
    "sentences": len(sentences),
    "window": max(map(len, sentences)),
    "songs_without_genre": int(catalogue.learned.sum() - len(sentences)),
    "codes": codes,
    "codes_without_song": codes - len(words.index_to_key),
  }
  vector_files.write(path, vectors, {"settings": settings, "counts": counts})
  print(
    f"word2vec of {counts['sentences']} songs, window {counts['window']}; "
    f"{counts['songs_without_genre']} training or validation songs have no "
    f"genre; {counts['codes_without_song']} of {codes} codes stand at no such "
    "song and keep a random row"
  )
  print(f"wrote {path}, {vectors.shape[0]} x {vectors.shape[1]}")
  return path
