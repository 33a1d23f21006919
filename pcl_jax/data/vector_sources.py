"""What the vectors of playlists and genres are learned from, and its hashes.

The reports of the vectors hold the hashes, so that the audit can tell whether a
test song was in them.
"""

import hashlib

from jaxtyping import Int
import numpy as np

from pcl_jax.data import catalogues


def learned_entries(
  catalogue: catalogues.Catalogue,
) -> tuple[Int[np.ndarray, " entries"], Int[np.ndarray, " entries"]]:
  """Selects what mode P is learned from: no test song is in it.

  Returns:
    Playlist and song (row of the catalogue) of each entry, int32 [entries],
    in ascending order. The playlists are those of train.json that hold a
    training or validation song, numbered from 0.
  """
  lists, rows = catalogue.playlists.list_index(), catalogue.playlists.values
  kept = catalogue.learned[rows]
  kept &= catalogue.playlist_files[lists] == catalogues.TRAIN_FILE
  songs = max(len(catalogue), 1)
  keys = np.unique(lists[kept].astype(np.int64) * songs + rows[kept])
  lists, rows = np.divmod(keys, songs)
  numbers = np.unique(lists, return_inverse=True)[1]
  return numbers.astype(np.int32), rows.astype(np.int32)


def of_playlist_vectors(catalogue: catalogues.Catalogue) -> dict[str, str]:
  """Returns hashes of what mode P's vectors are learned from."""
  entries = _sha256(*learned_entries(catalogue))
  return _song_ids(catalogue) | {"entries_sha256": entries}


def of_genre_vectors(catalogue: catalogues.Catalogue) -> dict[str, str]:
  """Returns hashes of what mode G's vectors are learned from."""
  lists = catalogue.genres.values, catalogue.genres.offsets
  genres = _sha256(catalogue.split, *lists, catalogue.genre_codes)
  return _song_ids(catalogue) | {"genres_sha256": genres}


def _song_ids(catalogue: catalogues.Catalogue) -> dict[str, str]:
  ids = catalogue.song_ids.tobytes()
  return {"song_ids_sha256": hashlib.sha256(ids).hexdigest()}


def _sha256(*arrays: np.ndarray) -> str:
  """Hashes the types, shapes and numbers of arrays."""
  digest = hashlib.sha256()
  for array in arrays:
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()
