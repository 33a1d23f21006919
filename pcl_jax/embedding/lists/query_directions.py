"""What a list is to sound like: songs wanted and unwanted, and blends."""

from jaxtyping import Float
import numpy as np

from pcl_jax.common import errors
from pcl_jax.embedding.tables import search

_LEAST_LENGTH = 1e-3  # A shorter difference of unit vectors is rounding.


def direction(
  wanted: Float[np.ndarray, "songs d"],
  unwanted: Float[np.ndarray, "others d"] | None = None,
) -> Float[np.ndarray, " d"]:
  """Returns the unit vector that points to some songs and away from others.

  It is the mean of the wanted songs minus the mean of the unwanted ones, each
  song taken with length one.

  Raises:
    InputError: the songs cancel each other out.
  """
  found = search.unit(wanted).mean(axis=0)
  if unwanted is not None and len(unwanted):
    found = found - search.unit(unwanted).mean(axis=0)
  length = float(np.linalg.norm(found))
  if not length >= _LEAST_LENGTH:
    raise errors.InputError(
      f"the {len(wanted)} songs that are wanted and the "
      f"{0 if unwanted is None else len(unwanted)} that are not cancel each "
      f"other out (what is left has length {length:.1g}): leave out songs "
      "that stand on both sides."
    )
  return (found / length).astype(np.float32)


def blended(
  scores: Float[np.ndarray, " songs"],
  others: Float[np.ndarray, " songs"],
  share: float,
) -> Float[np.ndarray, " songs"]:
  """Mixes two scores of songs, of which the second is not always known.

  The second scores are first given the mean and the deviation that the first
  ones have over the songs with both: cosines of two kinds of vectors are spread
  differently. A song without a second score keeps its first one.

  Args:
    scores: cosines of the audio.
    others: cosines of other vectors, NaN where a song has none.
    share: of the second scores, from 0 to 1.
  """
  known = np.isfinite(others)
  if not known.any():
    return scores
  mine, other = scores[known], others[known]
  scale = mine.std() / max(float(other.std()), 1e-12)
  moved = (other - other.mean()) * scale + mine.mean()
  mixed = scores.copy()
  mixed[known] = (1 - share) * mine + share * moved
  return mixed
