"""Continues playlists with new songs, and scores the continuations.

The context of a playlist is its training and validation songs, its targets are
its test songs; candidates are all test songs. Each context song lists its
nearest candidates. A candidate ranks by how many lists contain it, then by its
mean cosine with the context.
"""

from collections.abc import Iterator, Sequence
import dataclasses

from jaxtyping import Float, Int, Integer
import numpy as np

from pcl_jax.data import catalogues
from pcl_jax.data import ragged
from pcl_jax.embedding.tables import search

NEIGHBOURS = search.NEIGHBOURS
# Where the bands of results begin: number of context songs of a playlist, and
# number of other playlists that contain a target.
CONTEXT_EDGES = (1, 6, 21, 51)
POPULARITY_EDGES = (0, 1, 6, 21)
_MOST_AT_ONCE = 1 << 16  # Context songs whose vectors are copied.


@dataclasses.dataclass(frozen=True)
class Problem:
  """Playlists with known and hidden songs; songs are rows of the catalogue.

  Attributes:
    playlists: number of each playlist that has both, [kept].
    contexts: known songs of each playlist.
    targets: hidden songs of each playlist.
    candidates: songs that may be found, ascending.
  """

  playlists: Int[np.ndarray, " kept"]
  contexts: ragged.Ragged
  targets: ragged.Ragged
  candidates: Int[np.ndarray, " candidates"]


def split_playlists(
  playlists: ragged.Ragged,
  split: Int[np.ndarray, " songs"],
  known: Sequence[int] = (catalogues.TRAIN, catalogues.VALIDATION),
  hidden: int = catalogues.TEST,
) -> Problem:
  """Splits playlists into context and targets.

  Args:
    playlists: songs of each playlist.
    split: split of each song.
    known: splits of the context.
    hidden: split of the targets.

  Returns:
    The playlists that have both, in order.
  """
  parts = split[playlists.values]
  contexts = playlists.keep(np.isin(parts, known))
  targets = playlists.keep(parts == hidden)
  rows = np.flatnonzero((contexts.lengths > 0) & (targets.lengths > 0))
  return Problem(
    playlists=rows,
    contexts=contexts.select(rows),
    targets=targets.select(rows),
    candidates=np.flatnonzero(split == hidden),
  )


def continue_playlists(
  embeddings: Float[np.ndarray, "songs d"],
  problem: Problem,
  k: int = NEIGHBOURS,
) -> Iterator[tuple[Int[np.ndarray, " found"], int]]:
  """Yields each playlist's continuation.

  Args:
    embeddings: one row for each song, finite, [songs, d].
    problem: contexts and candidates.
    k: length of each context song's list, and of the continuation.

  Yields:
    Songs, best first, k or fewer; and how many distinct songs the lists held.
    Equal votes and cosines go by the song's row.
  """
  used, others = np.unique(problem.contexts.values), problem.candidates
  candidates = search.unit(embeddings[others])
  lists = np.empty((len(used), min(k, len(others))), np.int32)
  # No copy of all vectors is made.
  count = max(-(-len(used) // _MOST_AT_ONCE), 1)
  for some in np.array_split(np.arange(len(used)), count):
    songs = search.unit(embeddings[used[some]])
    lists[some], _ = search.top_k(songs, candidates, lists.shape[1])
  for i in range(len(problem.playlists)):
    rows = np.searchsorted(used, problem.contexts[i])
    songs = search.unit(embeddings[problem.contexts[i]])
    centre = songs.mean(axis=0, dtype=np.float32)
    found, distinct = search.rank_by_votes(
      lists[rows], lambda some, centre=centre: candidates[some] @ centre, k
    )
    yield others[found.rows], distinct


def published_length(distinct: int, k: int = NEIGHBOURS) -> int:
  """Returns how many songs the published code returns.

  Args:
    distinct: number of distinct songs in the lists.
    k: length that is wanted; with fewer than k + 1 songs the last one is lost.
  """
  return k if distinct > k else distinct - 1


def _discounted(hits: np.ndarray) -> float:
  return float((hits / np.log2(np.arange(2, len(hits) + 2))).sum())


def score(
  found: Integer[np.ndarray, " found"],
  targets: Integer[np.ndarray, " targets"],
  k: int = NEIGHBOURS,
) -> dict[str, float]:
  """Scores one continuation.

  Args:
    found: songs, best first, k at most.
    targets: hidden songs of the playlist; at least one.
    k: length of a full list.

  Returns:
    `recall` (hits / targets), `recall_at_10`, `average_precision` (divided by
    the smaller of targets and k), `ndcg` (ideal: all targets first),
    `r_precision` (share of hits among the first songs, as many as there are
    targets), and `ndcg_published`, whose ideal list has only the targets that
    were found: one hit in the first place scores 1, however many were missed.
  """
  hits = np.isin(found, targets)
  places = np.flatnonzero(hits) + 1
  number = np.arange(1, len(places) + 1)
  gain, size = _discounted(hits), len(targets)
  ideal = _discounted(np.ones(min(size, k)))
  return {
    "recall": len(places) / size,
    "recall_at_10": int((places <= 10).sum()) / size,
    "average_precision": float((number / places).sum()) / min(size, k),
    "ndcg": gain / ideal,
    "r_precision": int((places <= size).sum()) / size,
    "ndcg_published": gain / _discounted(np.ones(len(places)))
    if len(places)
    else 0.0,
  }


def by_popularity(
  problem: Problem, counts: Int[np.ndarray, " songs"], k: int = NEIGHBOURS
) -> Iterator[tuple[Int[np.ndarray, " found"], int]]:
  """Yields the candidates that are in most other playlists: a baseline.

  Args:
    problem: contexts and candidates.
    counts: number of playlists that contain each song, [songs]; the playlist
      that is continued is not counted.
    k: length of the continuation.
  """
  songs = problem.candidates
  order = np.lexsort((songs, -counts[songs]))
  for i in range(len(problem.playlists)):
    targets = problem.targets[i]
    # Only its targets change, and by one: they and the first k are enough.
    near = np.union1d(songs[order[: k + len(targets)]], targets)
    own = np.isin(near, targets)
    found = near[np.lexsort((near, own - counts[near]))][:k]
    yield found, len(songs)


def at_random(
  problem: Problem, rng: np.random.Generator, k: int = NEIGHBOURS
) -> Iterator[tuple[Int[np.ndarray, " found"], int]]:
  """Yields candidates drawn for each playlist: a baseline.

  Args:
    problem: contexts and candidates.
    rng: draws the candidates.
    k: length of the continuation.
  """
  songs = problem.candidates
  for _ in range(len(problem.playlists)):
    yield rng.choice(songs, min(k, len(songs)), replace=False), len(songs)


def band_names(edges: Sequence[int]) -> list[str]:
  """Names the bands between edges: (1, 6) gives `1-5` and `6+`."""
  names = []
  for low, high in zip(edges[:-1], edges[1:], strict=True):
    names.append(f"{low}" if high == low + 1 else f"{low}-{high - 1}")
  return [*names, f"{edges[-1]}+"]


def score_playlists(
  problem: Problem,
  continuations: Iterator[tuple[Int[np.ndarray, " found"], int]],
  counts: Int[np.ndarray, " songs"],
  k: int = NEIGHBOURS,
) -> dict[str, np.ndarray]:
  """Scores every playlist.

  Args:
    problem: contexts and targets.
    continuations: songs found for each playlist, and the number of distinct
      songs that they were chosen from.
    counts: number of playlists that contain each song, [songs].
    k: length of a full continuation.

  Returns:
    Columns of one value a playlist: `playlist`, the measures of `score`,
    `recall_context_BAND` (recall of playlists with so many context songs, nan
    for others), `recall_popularity_BAND` (recall of the targets that are in so
    many other playlists; nan where there are none), `shortened` (1 where the
    published list is shorter than k).
  """
  names = [f"recall_popularity_{b}" for b in band_names(POPULARITY_EDGES)]
  rows = []
  for i, (found, distinct) in enumerate(continuations):
    targets = problem.targets[i]
    row = score(found, targets, k)
    length = published_length(distinct, k)
    published = score(found[:length], targets, k)["ndcg_published"]
    row["ndcg_published"] = published
    row["shortened"] = float(length < min(k, distinct))
    hits = np.isin(targets, found)
    band = np.digitize(counts[targets] - 1, POPULARITY_EDGES[1:])
    for b, name in enumerate(names):
      mine = hits[band == b]
      row[name] = mine.mean() if len(mine) else np.nan
    rows.append(row)
  columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
  band = np.digitize(problem.contexts.lengths, CONTEXT_EDGES[1:])
  for b, name in enumerate(band_names(CONTEXT_EDGES)):
    columns[f"recall_context_{name}"] = np.where(
      band == b, columns["recall"], np.nan
    )
  return {"playlist": problem.playlists} | columns
