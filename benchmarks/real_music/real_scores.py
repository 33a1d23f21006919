"""What vectors of real recordings are worth, query by query.

Queries are the recordings among the test songs; rendered scores are trained on
and never looked for. A query's candidates are the other test recordings of its
fold (`RETRIEVAL`), or all other recordings (`LOOK_UP`). No candidate was
learned from that shares an artist or album with the query.
"""

import pathlib

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.evaluation.retrieval import ranking
from pcl_jax.evaluation.retrieval import relevance
from pcl_jax.library import music_files

RETRIEVAL, LOOK_UP = PROTOCOLS = ("retrieval", "look-up")
TASKS = ("album", "artist", "artist, other album", "genre")
AVERAGE, PRECISION = METRICS = ("average_precision", "precision_at_5")
_RENDERED = "scores/"

# Protocol -> task -> `songs`, and a value for each of them of each metric.
Scores = dict[str, dict[str, dict[str, list]]]


def recordings(data: dataset.DataSet) -> Int[np.ndarray, " songs"]:
  """Returns the rows of the songs that are no rendered scores."""
  path = pathlib.Path(data.directory) / music_files.IDS
  ids = storage.read_made_json(path)["ids"] if path.exists() else {}
  made = [ids[name] for name in ids if name.startswith(_RENDERED)]
  is_made = np.isin(data.catalogue.song_ids, made)
  return np.flatnonzero(~is_made).astype(np.int32)


def _rules(catalogue: catalogues.Catalogue) -> dict[str, relevance.Relevance]:
  albums, artists = catalogue.album_lists(), catalogue.artists
  of = relevance.Relevance.of
  rules = (
    of(albums),
    of(artists),
    of(artists, hiding=albums),
    of(relevance.sub_genres(catalogue)),
  )
  return dict(zip(TASKS, rules, strict=True))


def measure(
  data: dataset.DataSet, embeddings: Float[np.ndarray, "songs d"] | None
) -> Scores:
  """Looks up the test recordings of a data set, or of a fold.

  Args:
    data: the songs and their split.
    embeddings: a vector for each of them, [songs, d]; None for chance, the mean
      over all orders of the candidates.
  """
  catalogue, known = data.catalogue, recordings(data)
  queries = known[catalogue.split[known] == catalogues.TEST]
  ids, scores = catalogue.song_ids[queries], {}
  by_chance = embeddings is None
  if by_chance:
    embeddings = np.ones((len(catalogue), 1), np.float32)
  for protocol in PROTOCOLS:
    candidates = queries if protocol == RETRIEVAL else known
    found = ranking.measure(embeddings, queries, candidates, _rules(catalogue))
    scores[protocol] = {}
    for task, columns in (
      found.by_chance if by_chance else found.columns
    ).items():
      defined = ~np.isnan(columns[AVERAGE])
      scores[protocol][task] = {
        "songs": ids[defined].tolist(),
        **{one: columns[one][defined].tolist() for one in METRICS},
      }
  return scores
