"""A table of random vectors, as pcl_jax.embed writes one."""

from collections.abc import Sequence
import pathlib

import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.audio import melspectrogram
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import song_table

SONGS, LENGTH = 60, 8


def write(
  path: pathlib.Path,
  seed: int = 0,
  songs: int = SONGS,
  root: str = "/music",
  silent: Sequence[int] = (),
  names: Sequence[str] = (),
  facts: dict[str, list] | None = None,
  vectors: np.ndarray | None = None,
  channels: str = channel_mix.MEAN,
) -> song_table.Table:
  """Writes a table, and reads it.

  Args:
    path: of the file.
    seed: of the vectors.
    songs: how many.
    root: folder of the songs; empty for a table without paths.
    silent: rows of silent songs.
    names: those of the first songs, in place of numbers.
    facts: columns of labels and lengths.
    vectors: in place of random ones.
    channels: what was taken of several.
  """
  if vectors is None:
    vectors = np.random.default_rng(seed).normal(size=(songs, LENGTH))
  songs, length = vectors.shape
  about = {
    "format_version": embedding_table.FORMAT_VERSION,
    "per_patch": False,
    "roots": [root] if root else [],
    "feature": melspectrogram.SETTINGS.as_dict(channels),
    "weights_sha256": "0" * 64,
    "workdir": "/runs/gone",
    "checkpoint": "best",
    "step": 3,
  }
  like = embedding_table.schema(length, about, odd_names=bool(names))
  ids = [*names, *(f"{number}.mp3" for number in range(len(names), songs))]
  columns = {
    "id": ids,
    "path": [f"{root}/{one}" if root else "" for one in ids],
    "patches": [1] * songs,
    "padded": [False] * songs,
    "silent": [row in silent for row in range(songs)],
  } | (facts or {})
  rows = embedding_table.rows(columns, vectors.astype(np.float32), like)
  embedding_table.write(path, like, [rows])
  return song_table.read_table(path)
