"""Makes mode G's vectors: word2vec of the genre codes.

The codes of each training or validation song, sub-genres before genres, are one
sentence; the window is the longest sentence. Writes genre_vectors.npy, float32
[codes + 1, dims], row c for code c of the catalogue and row 0, zeros, for
padding, and genre_vectors.json, which says how. A code that no training or
validation song has keeps a small random row.

  python -m preprocessing.genre_vectors --data=data/melon
  python -m preprocessing.genre_vectors --data=data/mine --dims=64 --epochs=20
"""

from collections.abc import Sequence

from pcl_jax.common import errors
from preprocessing.vectors import genre_words
from preprocessing.vectors import vector_files


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the vectors."""
  vector_files.run_command(
    genre_words.make_genre_vectors,
    "preprocessing.genre_vectors",
    __doc__,
    {
      "dims": (128, "size of a vector"),
      "epochs": (5, "how often word2vec sees each song"),
      "seed": (0, "seed of all draws"),
    },
    argv,
  )


if __name__ == "__main__":
  errors.run_command(main)
