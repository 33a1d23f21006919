"""Places songs on a plane, so that neighbours are near each other."""

from importlib import metadata
import warnings

from jaxtyping import Float
import numpy as np

from pcl_jax.embedding import search

_NEIGHBOURS = 15  # Of each song, for UMAP.


def _by_pca(rows: Float[np.ndarray, "songs d"]) -> Float[np.ndarray, "songs 2"]:
  """Returns the first two principal components; missing ones are zeros."""
  centred = (rows - rows.mean(axis=0)).astype(np.float64)
  _, axes = np.linalg.eigh(centred.T @ centred)
  axes = axes[:, ::-1][:, :2]
  # The sign of an axis is arbitrary: its largest number is positive.
  axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
  placed = np.zeros((len(rows), 2))
  placed[:, : axes.shape[1]] = centred @ axes
  return placed


def _has_umap() -> bool:
  try:
    return bool(metadata.version("umap-learn"))
  except metadata.PackageNotFoundError:
    return False


def _by_umap(
  rows: Float[np.ndarray, "songs d"], seed: int
) -> Float[np.ndarray, "songs 2"]:
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of numba, and of one thread for a seed.
    import umap

    reducer = umap.UMAP(
      n_neighbors=_NEIGHBOURS, metric="cosine", random_state=seed, n_jobs=1
    )
    return np.asarray(reducer.fit_transform(rows), np.float64)


def place(
  vectors: Float[np.ndarray, "songs d"], seed: int = 0
) -> tuple[Float[np.ndarray, "songs 2"], str]:
  """Places songs on a plane, by UMAP where umap-learn is installed, else PCA.

  Args:
    vectors: finite vectors of the songs, [songs, d]; only their directions
      count.
    seed: the seed of UMAP.

  Returns:
    A place for each song, both axes stretched to [-1, 1], and the method:
    `UMAP` or `PCA`.
  """
  rows = search.unit(np.asarray(vectors, np.float32))
  if _has_umap() and len(rows) > 2 * _NEIGHBOURS:
    placed, method = _by_umap(rows, seed), "UMAP"
  else:
    placed, method = _by_pca(rows), "PCA"
  low, high = placed.min(axis=0), placed.max(axis=0)
  half = np.maximum((high - low) / 2, 1e-12)
  return (placed - (low + high) / 2) / half, method
