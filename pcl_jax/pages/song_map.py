"""Places songs on a plane, so that neighbours are near each other."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any
import warnings

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.embedding.tables import search
from pcl_jax.pages import chart_specs

MOST_SONGS = 20_000  # On a map.
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


def drawn(songs: int, seed: int) -> Int[np.ndarray, " drawn"]:
  """Returns the rows of all songs; of many, as many as a browser draws."""
  rows = np.arange(songs, dtype=np.int32)
  if songs <= MOST_SONGS:
    return rows
  rng = np.random.default_rng(seed)
  return np.sort(rng.choice(rows, MOST_SONGS, replace=False))


def _coded(lists: Sequence[Sequence[str]]) -> dict[str, Any]:
  """Returns all names, the most frequent first, and each song's by number."""
  counts: dict[str, int] = {}
  for some in lists:
    for name in set(some):
      counts[name] = counts.get(name, 0) + 1
  names = sorted(counts, key=lambda name: (-counts[name], name))
  place = {name: i for i, name in enumerate(names)}
  of = [sorted({place[name] for name in some}) for some in lists]
  return {"names": names, "of": of}


def columns(
  ids: Sequence[Any],
  names: Sequence[str],
  placed: Float[np.ndarray, "songs 2"],
  has: Mapping[str, Sequence[Sequence[str]]],
) -> dict[str, Any]:
  """Returns what a page's script reads of a map, by column, plain values.

  Args:
    ids: of the songs.
    names: of the songs.
    placed: place of each song.
    has: what colours the songs: a kind, and what each song has of it.
  """
  return {
    "id": list(ids),
    "name": list(names),
    "x": np.round(placed[:, 0], 4).tolist(),
    "y": np.round(placed[:, 1], 4).tolist(),
    "has": {kind: _coded(some) for kind, some in has.items()},
    "colours": {
      "groups": chart_specs.PALETTE,
      "rest": chart_specs.GREY,
      "rest_name": chart_specs.REST,
    },
  }
