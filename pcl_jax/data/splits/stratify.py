"""Splits songs into train, validation and test, stratified over labels."""

from collections.abc import Callable

from jaxtyping import Bool, Float, Int, Int8
import numpy as np

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import pairs
from pcl_jax.data import ragged
from pcl_jax.data.splits import song_groups

NEW = song_groups.NEW
_MAX_SEED = 2**32 - 1
_DRAWS = 30


class TooFewSongs(errors.InputError):
  """Songs that cannot be divided by the shares that are asked for."""


def choose_share(
  labels: Bool[np.ndarray, "songs labels"], share: float, seed: int
) -> Bool[np.ndarray, " songs"]:
  """Chooses a share of the songs in (0, 1), stratified over their labels.

  The iterative stratification is that of Sechidis et al., `On the
  Stratification of Multi-Label Data`, ECML PKDD 2011. Without any label the
  songs are shuffled. Raises TooFewSongs where they cannot be divided.
  """
  # Takes seconds to import, and commands that divide nothing import this.
  from iterstrat import ml_stratifiers

  chosen = np.zeros(len(labels), bool)
  if not labels.any():
    count = round(share * len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen[order[:count]] = True
    return chosen
  if labels.shape[1] == 1:  # The stratifier refuses a single label.
    labels = np.concatenate([labels, ~labels], axis=1)
  splitter = ml_stratifiers.MultilabelStratifiedShuffleSplit(
    n_splits=1, test_size=share, random_state=seed
  )
  try:
    _, rows = next(splitter.split(np.zeros(len(labels)), labels))
  except ValueError as error:
    raise TooFewSongs(
      f"{len(labels)} songs cannot be divided with a share of {share:g} "
      f"({error}). Take more songs or other shares."
    ) from error
  chosen[rows] = True
  return chosen


def divide(
  labels: Bool[np.ndarray, "songs labels"],
  *,
  test_share: float,
  validation_share: float,
  seed: int,
) -> Int8[np.ndarray, " songs"]:
  """Chooses the test songs of all, then the validation songs of the rest.

  Both shares are of all songs. Returns TRAIN, VALIDATION or TEST of each song.
  """
  split = np.full(len(labels), catalogues.TRAIN, np.int8)
  split[choose_share(labels, test_share, seed)] = catalogues.TEST
  rest = np.flatnonzero(split == catalogues.TRAIN)
  if len(rest):
    share = validation_share / (1 - test_share)
    split[rest[choose_share(labels[rest], share, seed)]] = catalogues.VALIDATION
  return split


def _quotas(
  wanted: Float[np.ndarray, " parts"], count: int
) -> Int[np.ndarray, " parts"]:
  """Divides a number of songs over parts that want some, in whole songs."""
  exact = np.maximum(wanted, 0.0)
  if not count:
    return np.zeros(len(wanted), int)
  exact *= count / exact.sum()
  quotas = np.floor(exact).astype(int)
  most = np.argsort(quotas - exact, kind="stable")
  quotas[most[: count - quotas.sum()]] += 1
  return quotas


def add_songs(
  labels: Bool[np.ndarray, "songs labels"],
  split: Int8[np.ndarray, " songs"],
  new: Bool[np.ndarray, " songs"],
  *,
  test_share: float,
  validation_share: float,
  seed: int,
) -> Int8[np.ndarray, " songs"]:
  """Divides new songs; all others keep their part.

  Each part gets as many new songs as it lacks of its share of all songs. Within
  these numbers a song goes to the part that lacks most of its label; songs with
  the rarest label go first.

  The part of a new song is not read. Both shares are of all songs.

  Returns:
    TRAIN, VALIDATION, TEST or NO_SPLIT of each song.
  """
  # In the order of the parts' numbers.
  shares = np.array(
    [1 - test_share - validation_share, validation_share, test_share]
  )
  # A label that all songs have comes last: what is left is divided by number.
  labels = np.concatenate([labels, np.ones((len(labels), 1), bool)], axis=1)
  there = np.stack(
    [labels[~new & (split == part)].sum(axis=0) for part in range(3)]
  )
  lacking = np.outer(shares, there.sum(axis=0) + labels[new].sum(axis=0))
  lacking -= there
  quotas = _quotas(lacking[:, -1], int(new.sum()))
  split = split.copy()
  todo = np.random.default_rng(seed).permutation(np.flatnonzero(new))
  while len(todo):
    left = labels[todo].sum(axis=0, dtype=float)
    rarest = np.argmin(np.where(left > 0, left, np.inf))
    has = labels[todo, rarest]
    for song in todo[has].tolist():
      ranked = np.lexsort(
        (-np.arange(3), quotas, lacking[:, rarest], quotas > 0)
      )
      part = split[song] = ranked[-1]
      quotas[part] -= 1
      lacking[part, labels[song]] -= 1
    todo = todo[~has]
  return split


def _labels(
  genres: ragged.Ragged, num_codes: int
) -> Bool[np.ndarray, "songs labels"]:
  labels = np.zeros((len(genres), num_codes), bool)
  labels[genres.list_index(), genres.values - 1] = True
  return labels


def folds(
  catalogue: catalogues.Catalogue,
  count: int,
  *,
  split_by: str,
  validation_share: float,
  seed: int,
) -> list[Int8[np.ndarray, " songs"]]:
  """Divides the songs into folds of whole groups, stratified over genres.

  Songs that no split names are in no fold. Validation songs are drawn again, up
  to 30 times, where a kind of pairs would have too few among them.

  Args:
    catalogue: the songs.
    count: number of folds.
    split_by: what a group is, one of `song_groups.SPLIT_BY`.
    validation_share: share of all songs that each fold validates on.
    seed: seed of the folds.

  Returns:
    For each fold the part of each song: its own songs are test songs, and the
    others are divided into training and validation songs.

  Raises:
    InputError: there are fewer than two folds or more than 127, the share is
      not between 0 and what the test songs leave, the seed is out of range, or
      groups are too large.
  """
  most = 1 - 1 / max(count, 1)
  if count < 2 or not 0 < validation_share < most:
    raise errors.InputError(
      f"folds is {count} and validation_share {validation_share:g}: there must "
      f"be at least 2 folds, and the share must be above 0 and below {most:g}, "
      "what the test songs leave."
    )
  most_folds = np.iinfo(np.int8).max
  if count > most_folds or not 0 <= seed <= _MAX_SEED:
    raise errors.InputError(
      f"folds is {count} and seed {seed}: there may be at most {most_folds} "
      f"folds, and the seed must be in 0..{_MAX_SEED}."
    )
  used = np.flatnonzero(catalogue.split != catalogues.NO_SPLIT)
  labels = _labels(catalogue.genres, len(catalogue.genre_codes))[used]
  groups = song_groups.of_songs(catalogue, split_by)[used]
  new, shares = np.full(len(used), NEW, np.int8), np.full(count, 1 / count)
  fold = song_groups.divide(labels, groups, new, shares, seed)
  names = [f"fold {number}" for number in range(count)]
  song_groups.check(groups, fold, shares, split_by, names)
  splits, validated = [], validation_share / most
  for number in range(count):
    rest = fold != number
    parts = np.array([1 - validated, validated])

    def draw(attempt: int, rest=rest, parts=parts) -> np.ndarray:
      inner = song_groups.divide(
        labels[rest],
        groups[rest],
        new[rest],
        parts,
        (seed + attempt) % _MAX_SEED,
      )
      song_groups.check(
        np.unique(groups[rest], return_inverse=True)[1],
        inner,
        parts,
        split_by,
        catalogues.SPLIT_NAMES[:2],
      )
      split = np.full(len(catalogue), catalogues.NO_SPLIT, np.int8)
      split[used] = catalogues.TEST
      split[used[rest]] = inner
      return split

    splits.append(_best_validated(catalogue, draw))
  return splits


def _best_validated(
  catalogue: catalogues.Catalogue,
  draw: Callable[[int], Int8[np.ndarray, " songs"]],
) -> Int8[np.ndarray, " songs"]:
  """Returns the first drawn split that validates most kinds of pairs."""
  best, most = None, -1
  for attempt in range(_DRAWS):
    try:
      split = draw(attempt)
    except errors.InputError:  # Groups that do not fit the shares this time.
      if best is None:
        raise
      continue
    known = split != catalogues.TEST
    kinds = [_has_pairs(catalogue, split == catalogues.VALIDATION)]
    kinds.append(_has_pairs(catalogue, known & (split >= 0)))
    found, possible = kinds
    if found > most:
      best, most = split, found
    if found == possible:
      break
  return best


def _has_pairs(
  catalogue: catalogues.Catalogue, songs: Bool[np.ndarray, " songs"]
) -> int:
  """Counts the kinds of pairs of which some songs give two or more."""
  found = 0
  for method in catalogues.PAIR_METHODS:
    drawn = pairs.draw_pairs(
      catalogue.pair_lists(method),
      songs,
      once=pairs.ONCE_AN_EPOCH[method],
      rng=np.random.default_rng(0),
    )
    found += len(drawn) >= 2
  return found


def check_shares(test_share: float, validation_share: float, seed: int) -> None:
  """Raises InputError where no songs can be divided so."""
  shares = test_share, validation_share
  if not (min(shares) > 0 and sum(shares) < 1):
    raise errors.InputError(
      f"test_share is {test_share:g} and validation_share is "
      f"{validation_share:g}; both must be above 0 and their sum below 1."
    )
  if not 0 <= seed <= _MAX_SEED:
    raise errors.InputError(f"seed is {seed}; it must be in 0..{_MAX_SEED}.")


def split_songs(
  genres: ragged.Ragged,
  num_codes: int,
  *,
  test_share: float,
  validation_share: float,
  seed: int,
  known: Int8[np.ndarray, " songs"] | None = None,
  groups: Int[np.ndarray, " songs"] | None = None,
  split_by: str = song_groups.SONG,
) -> Int8[np.ndarray, " songs"]:
  """Divides songs as `divide` does, over their genre codes, 1..num_codes.

  `known` has the part of each song, NEW for those that have none yet: only
  these are divided, as `add_songs` does. None if all songs are new. With
  `groups`, the group of each song, a whole group goes to one part; messages
  call it `split_by`.

  Raises:
    TooFewSongs: a part would be empty.
    InputError: a share, or their sum, is not between 0 and 1; the seed is
      negative or too large; groups are too large for the shares.
  """
  check_shares(test_share, validation_share, seed)
  labels = _labels(genres, num_codes)
  how = {"test_share": test_share, "validation_share": validation_share}
  how["seed"] = seed
  if groups is not None:
    known = np.full(len(labels), NEW, np.int8) if known is None else known
    train_share = 1 - test_share - validation_share
    parts = np.array([train_share, validation_share, test_share])
    split = song_groups.divide(labels, groups, known, parts, seed)
    song_groups.check(groups, split, parts, split_by)
  elif known is None or (known == NEW).all():
    split = divide(labels, **how)
  else:
    split = add_songs(labels, known, known == NEW, **how)
  counts = np.bincount(split[split >= 0], minlength=3)
  if not counts.all():
    named = zip(catalogues.SPLIT_NAMES, counts, strict=True)
    raise TooFewSongs(
      f"{len(genres)} songs are too few for the shares {test_share:g} (test) "
      f"and {validation_share:g} (validation): the split would be "
      f"{', '.join(f'{name} {count}' for name, count in named)}. Take more "
      "songs or other shares."
    )
  return split
