"""ROC-AUC and average precision of tags, exact, and over resampled songs."""

from collections.abc import Iterator

from jaxtyping import Bool, Float
import numpy as np
from scipy import sparse

_DRAWS_AT_ONCE = 100  # Bounds the memory: songs x this many float32 weights.


def both_classes(
  labels: Bool[np.ndarray, "songs tags"],
) -> Bool[np.ndarray, " tags"]:
  """Tells for which tags there is a song with it and a song without it."""
  return labels.any(axis=0) & ~labels.all(axis=0)


def _segments(
  scores: Float[np.ndarray, " songs"], labels: Bool[np.ndarray, " songs"]
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts songs, best first, where anything about a curve can change.

  Songs of equal score stand together, whatever their label; runs of scores
  that no song with the tag has are one segment, as only their sum counts.

  Returns:
    The order of the songs, [songs], and where each segment begins.
  """
  order = np.argsort(-scores, kind="stable")
  ranked, has = scores[order], labels[order]
  begins = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
  holds = np.maximum.reduceat(has, begins)
  kept = np.append(True, holds[1:] | holds[:-1])
  return order, begins[kept]


def _sums(
  order: np.ndarray,
  begins: np.ndarray,
  wanted: np.ndarray,
  weights: np.ndarray,
) -> np.ndarray:
  """Sums the weights of the wanted songs of each segment; [segments, draws]."""
  taken = wanted[order]
  ends = np.append(0, np.cumsum(taken))
  starts = np.append(ends[begins], ends[-1])
  columns = order[taken]
  # A product with a sparse matrix: the weights are read once and not sorted.
  matrix = sparse.csr_array(
    (np.ones(len(columns), weights.dtype), columns, starts),
    shape=(len(begins), len(order)),
  )
  return matrix @ weights


def _weighted(
  scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Computes both metrics of one tag for each column of weights."""
  order, begins = _segments(scores, labels)
  with_tag = _sums(order, begins, labels, weights).astype(np.float64)
  without = _sums(order, begins, ~labels, weights).astype(np.float64)
  found, false = with_tag.cumsum(axis=0), without.cumsum(axis=0)
  positives, negatives = found[-1], false[-1]
  # The area below the ROC curve: over each segment it is a trapezium.
  above = (without * (found - with_tag / 2)).sum(axis=0)
  share = np.divide(
    found, found + false, out=np.zeros_like(found), where=found > 0
  )
  both = (positives > 0) & (negatives > 0)
  area = np.full(len(both), np.nan)
  precision = area.copy()
  np.divide(above, positives * negatives, out=area, where=both)
  np.divide(
    (with_tag * share).sum(axis=0), positives, out=precision, where=both
  )
  return area, precision


def by_tag(
  scores: Float[np.ndarray, "songs tags"],
  labels: Bool[np.ndarray, "songs tags"],
) -> tuple[Float[np.ndarray, " tags"], Float[np.ndarray, " tags"]]:
  """Computes ROC-AUC and average precision of each tag.

  Equal scores are dealt with as scikit-learn does: half right for the area,
  one threshold for the precision.

  Args:
    scores: higher for songs that rather have the tag, finite.
    labels: which song has which tag.

  Returns:
    ROC-AUC and average precision, [tags] each; nan where all songs have the tag
    or none has it.
  """
  return tuple(
    np.array(one)[:, 0] for one in _over_tags(scores, labels, _ones(scores))
  )


def _ones(scores: np.ndarray) -> np.ndarray:
  return np.ones((len(scores), 1), np.float32)


def _over_tags(
  scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Computes both metrics, [tags, draws] each."""
  pairs = [
    _weighted(scores[:, tag], labels[:, tag], weights)
    for tag in range(scores.shape[1])
  ]
  area, precision = zip(*pairs, strict=True)
  return np.array(area), np.array(precision)


def draw_weights(
  songs: int, draws: int, seed: int
) -> Iterator[Float[np.ndarray, "songs some"]]:
  """Yields how often each song is in each bootstrap resample.

  Args:
    songs: how many there are, and are drawn each time.
    draws: number of resamples; they come some at a time.
    seed: of the resamples.
  """
  rng = np.random.default_rng(seed)
  for begin in range(0, draws, _DRAWS_AT_ONCE):
    some = min(_DRAWS_AT_ONCE, draws - begin)
    weights = np.empty((songs, some), np.float32)
    for draw in range(some):
      picked = rng.integers(0, songs, songs)
      weights[:, draw] = np.bincount(picked, minlength=songs)
    yield weights


def macro_draws(
  scores: Float[np.ndarray, "seeds songs tags"],
  labels: Bool[np.ndarray, "songs tags"],
  *,
  draws: int = 1000,
  seed: int = 0,
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
  """Computes both macro means for bootstrap resamples of the songs.

  Args:
    scores: of one probe for each seed; their metrics are averaged.
    labels: which song has which tag; tags with both classes only.
    draws: number of resamples.
    seed: of the resamples.

  Returns:
    Macro ROC-AUC and macro average precision of each resample, means over the
    tags that have both classes in it; nan where none has.
  """
  areas, precisions = [], []
  for weights in draw_weights(len(labels), draws, seed):
    pairs = [_over_tags(one, labels, weights) for one in scores]
    area, precision = (np.mean(two, axis=0) for two in zip(*pairs, strict=True))
    areas.append(mean_where_defined(area, axis=0))
    precisions.append(mean_where_defined(precision, axis=0))
  return np.concatenate(areas), np.concatenate(precisions)


def mean_where_defined(
  values: Float[np.ndarray, "*shape"], axis: int | None = None
) -> np.ndarray:
  """Returns the mean of what is not nan; nan, without a warning, of nothing."""
  there = ~np.isnan(values)
  total = np.where(there, values, 0.0).sum(axis=axis)
  count = there.sum(axis=axis)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def interval(
  draws: Float[np.ndarray, " draws"], share: float = 0.95
) -> tuple[float, float]:
  """Returns the percentile interval of bootstrapped values; nan of nothing."""
  draws = draws[~np.isnan(draws)]
  if not len(draws):
    return float("nan"), float("nan")
  low, high = np.quantile(draws, [(1 - share) / 2, (1 + share) / 2])
  return float(low), float(high)
