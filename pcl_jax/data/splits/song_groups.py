"""Splits whole groups of songs: those of an artist, of an album, or of both."""

from collections.abc import Sequence
import pathlib

from jaxtyping import Bool, Float, Int, Int8, UInt32
import numpy as np
import scipy.sparse
from scipy.sparse import csgraph

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import catalogues

SONG, ALBUM, ARTIST = "song", "album", "artist"
ARTIST_ALBUM = "artist_album"  # Neither an artist nor an album is torn.
SPLIT_BY = (SONG, ALBUM, ARTIST, ARTIST_ALBUM)
SETTINGS_FILE = "data_split.json"  # In a data set: how it was split.
NEW = -2  # In place of a part: the song has none yet.
_LEAST = 0.6  # A part with a smaller share of its songs is refused.
_MOST_TRIALS = 64
_PLACED = 50_000  # Groups that all trials together may place; 20 us each.


def read_copies(
  path: pathlib.Path, song_ids: UInt32[np.ndarray, " songs"]
) -> Int[np.ndarray, "pairs 2"]:
  """Reads which songs are one recording, as python -m pcl_jax.duplicates wrote.

  Args:
    path: json, {"groups": [[id, ...], ...]}.
    song_ids: the songs of a data set.

  Returns:
    Rows of songs, each song of a group with the first; others are passed over.

  Raises:
    InputError: the file cannot be read, or names none of the songs.
  """
  rows = {str(song): row for row, song in enumerate(song_ids.tolist())}
  try:
    groups = [list(map(str, g)) for g in storage.read_json(path)["groups"]]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.InputError(
      f"{path} cannot be read as groups of ids ({error!r}): give what python "
      "-m pcl_jax.duplicates --data --json wrote."
    ) from error
  known = [[rows[one] for one in group if one in rows] for group in groups]
  if groups and not any(known):
    raise errors.InputError(
      f"{path} names none of the {len(rows)} songs of the data set, but "
      f"{groups[0][:1]}: give what python -m pcl_jax.duplicates wrote of this "
      "data set (--data)."
    )
  pairs = [(group[0], row) for group in known for row in group[1:]]
  return np.array(pairs, np.int64).reshape(-1, 2)


def of_songs(
  catalogue: catalogues.Catalogue,
  split_by: str,
  copies: Int[np.ndarray, "pairs 2"] | None = None,
) -> Int[np.ndarray, " songs"]:
  """Returns the group of each song, numbered from 0.

  Songs that share an artist (an album, or either) are in one group, and so are
  songs that are connected by others: where A and B made a song together, all
  songs of both are one group. A song without any is a group of its own.
  `copies` are pairs of songs that are in one group whatever they share.
  """
  songs, nodes = len(catalogue), len(catalogue)
  ends: list[tuple[np.ndarray, np.ndarray]] = []
  if copies is not None:
    ends.append((copies[:, 0], copies[:, 1]))
  for kind, lists in (
    (ARTIST, catalogue.artists),
    (ALBUM, catalogue.album_lists()),
  ):
    if split_by in (kind, ARTIST_ALBUM):
      values = nodes + lists.values.astype(np.int64)
      ends.append((lists.list_index(), values))
      nodes += int(lists.values.max(initial=-1)) + 1
  if not ends:
    return np.arange(songs)
  rows, columns = map(np.concatenate, zip(*ends, strict=True))
  edges = scipy.sparse.coo_array(
    (np.ones(len(rows), bool), (rows, columns)), shape=(nodes, nodes)
  )
  _, labels = csgraph.connected_components(edges, directed=False)
  return np.unique(labels[:songs], return_inverse=True)[1]


def read_split_by(directory: pathlib.Path) -> str | None:
  """Returns what a data set was split by; None where a file decided it."""
  try:
    settings = storage.read_json(directory / SETTINGS_FILE)["settings"]
    by_shares = "test_share" in settings
    return settings.get("split_by", SONG if by_shares else None)
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return None


def torn(
  groups: Int[np.ndarray, " songs"], split: Int8[np.ndarray, " songs"]
) -> Int[np.ndarray, " torn"]:
  """Returns the groups that have songs in several parts."""
  used = split >= 0
  pairs = np.unique(np.stack([groups[used], split[used]]), axis=1)
  names, counts = np.unique(pairs[0], return_counts=True)
  return names[counts > 1]


def _place(
  counts: Int[np.ndarray, "groups labels"],
  lacking: Float[np.ndarray, "parts labels"],
  wanted: Float[np.ndarray, "parts labels"],
  order: Int[np.ndarray, " some"],
  *,
  least_first: bool,
) -> tuple[Int8[np.ndarray, " some"], tuple[int, float]]:
  """Places groups in an order; returns their parts and what is amiss.

  A group goes to the part with room that lacks the largest share of its labels,
  and where there is room in none, to the one that lacks most songs. With
  `least_first`, all parts but training get their least number of songs before.
  The last label is that of all songs.

  Returns:
    The part of each group in the order; the number of parts with too few songs,
    and the shares of songs and labels that are in the wrong part.
  """
  lacking, scale = lacking.copy(), 1 / np.maximum(wanted, 1e-9)
  parts = np.zeros(len(order), np.int8)
  enough = (1 - _LEAST) * wanted[:, -1]
  for place, group in enumerate(order.tolist()):
    mine = counts[group]
    has = np.flatnonzero(mine)
    weights = (lacking[:, has] * scale[:, has]) @ mine[has]
    room = lacking[:, -1] >= mine[-1]
    ranked = np.lexsort((lacking[:, -1], np.where(room, weights, 0.0), room))
    part = ranked[-1]
    if least_first and (lacking[1:, -1] > enough[1:]).any():
      part = 1 + np.argmax((lacking * scale)[1:, -1])
    parts[place] = part
    lacking[part] -= mine
  of_songs, of_labels = np.abs(lacking[:, -1]), np.abs(lacking[:, :-1])
  labels = max(float(wanted[:, :-1].sum()), 1.0)
  amiss = of_songs.sum() / wanted[:, -1].sum() + of_labels.sum() / labels
  too_few = int((lacking[:, -1] > enough).sum())
  return parts, (too_few, float(amiss))


def _best(
  counts: Int[np.ndarray, "groups labels"],
  lacking: Float[np.ndarray, "parts labels"],
  wanted: Float[np.ndarray, "parts labels"],
  seed: int,
) -> Int8[np.ndarray, " groups"]:
  """Places groups in several random orders; returns the best parts of each."""
  trials = int(np.clip(_PLACED // len(counts), 1, _MOST_TRIALS))
  rng, best = np.random.default_rng(seed), (len(wanted) + 1, 0.0)
  for least_first in (False, True):
    for _ in range(trials if best[0] else 0):
      order = rng.permutation(len(counts))
      if least_first:  # By the smallest groups.
        order = order[np.argsort(counts[order, -1], kind="stable")]
      parts, amiss = _place(
        counts, lacking, wanted, order, least_first=least_first
      )
      if amiss < best:
        best, found = amiss, parts[np.argsort(order)]
  return found


def divide(
  labels: Bool[np.ndarray, "songs labels"],
  groups: Int[np.ndarray, " songs"],
  known: Int8[np.ndarray, " songs"],
  shares: Float[np.ndarray, " parts"],
  seed: int,
) -> Int8[np.ndarray, " songs"]:
  """Divides songs so that a whole group goes to one part.

  Of several random orders of the groups, that is taken whose parts are nearest
  to their shares, of all songs and of each label.

  Args:
    labels: genres of each song.
    groups: group of each song, from 0.
    known: part of each song, NEW for those that are divided. These go to the
      part of their group's known songs, or of most of them.
    shares: of all songs, of training, validation and test.
    seed: of the orders.

  Returns:
    The part of each song.
  """
  everyone = np.ones((len(labels), 1), bool)
  labels = np.concatenate([labels, everyone], axis=1).astype(np.int32)
  split, new = known.copy(), known == NEW
  members = np.zeros((groups.max(initial=-1) + 1, len(shares)), np.int64)
  used = known >= 0
  np.add.at(members, (groups[used], known[used]), 1)
  begun = new & (members.sum(axis=1) > 0)[groups]
  split[begun] = members.argmax(axis=1)[groups[begun]]
  todo = split == NEW
  names, of = np.unique(groups[todo], return_inverse=True)
  if not len(names):
    return split
  ones = np.ones(len(of), np.int32)
  belongs = scipy.sparse.csr_array((ones, (of, np.arange(len(of)))))
  counts = np.asarray(belongs @ labels[todo])
  wanted = np.outer(shares, labels[split != catalogues.NO_SPLIT].sum(axis=0))
  there = [labels[split == part].sum(axis=0) for part in range(len(shares))]
  found = _best(counts, wanted - np.stack(there), wanted, seed)
  split[todo] = found[of]
  return split


def check(
  groups: Int[np.ndarray, " songs"],
  split: Int8[np.ndarray, " songs"],
  shares: Float[np.ndarray, " parts"],
  split_by: str,
  names: Sequence[str] = catalogues.SPLIT_NAMES,
) -> None:
  """Raises InputError where a part has far fewer songs than its share."""
  counts = np.bincount(split[split >= 0], minlength=len(shares))
  wanted = shares * counts.sum()
  if (counts >= np.maximum(_LEAST * wanted, 1)).all():
    return
  sizes = np.sort(np.unique(groups, return_counts=True)[1])[::-1]
  asked = ", ".join(f"{one:.0f}" for one in wanted)
  had = ", ".join(
    f"{name} {count}" for name, count in zip(names, counts, strict=True)
  )
  raise errors.InputError(
    f"a split by {split_by} cannot be had: the {len(groups)} songs are "
    f"{len(sizes)} groups that have no {split_by.replace('_', ' or ')} in "
    f"common, the largest of {sizes[0]} songs, and the parts would be {had} in "
    f"place of {asked}. Split by another of {', '.join(SPLIT_BY)} "
    "(--split_by), or give other shares or more songs."
  )
