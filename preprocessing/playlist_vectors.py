"""Makes mode P's vectors: WARP factors of the songs from their playlists.

Factorises the playlist x song matrix of train.json's playlists, restricted to
training and validation songs, and writes for each song of the catalogue its
factors and its bias: playlist_vectors.npy, float32 [songs, dims + 1], and
playlist_vectors.json, which says how. Test songs and songs in no playlist of
train.json keep their initial random factors and the bias 0.

Interrupted, the same command goes on from the last state saved (at the end of
an epoch, every ten minutes: --save_every_s). The same seed gives the same bits
on the same device.

  python -m preprocessing.playlist_vectors --data=data/melon
  python -m preprocessing.playlist_vectors --data=data/mine --dims=64 --rate=0.1
"""

from collections.abc import Sequence

from pcl_jax.common import errors
from preprocessing.vectors import playlist_factors
from preprocessing.vectors import vector_files


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the vectors."""
  vector_files.run_command(
    playlist_factors.make_playlist_vectors,
    "preprocessing.playlist_vectors",
    __doc__,
    {
      "dims": (300, "factors of a song"),
      "epochs": (50, "how often each entry is served"),
      "max_negatives": (40, "songs drawn for an entry at most"),
      "rate": (0.05, "Adagrad's learning rate"),
      "seed": (0, "seed of first factors, order and draws"),
      "save_every_s": (
        600.0,
        "seconds between two saved states; without effect on the result",
      ),
    },
    argv,
  )


if __name__ == "__main__":
  errors.run_command(main)
