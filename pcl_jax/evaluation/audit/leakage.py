"""Checks whether the encoder learned from test songs.

The checks look at what training used: the songs of its batches, the fixed
validation pairs, the tables of mode P and mode G, and the stored features
themselves, since a copy of a test song is a test song too.
"""

import collections
import dataclasses
import pathlib
from typing import Any

from jaxtyping import Int
import numpy as np

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.data import strategies
from pcl_jax.data import vector_sources
from pcl_jax.data.splits import learned_songs
from pcl_jax.data.splits import song_groups
from pcl_jax.evaluation.audit import near_duplicates

_EXAMPLES = 5
_KEY = ("frames", "checksum")


@dataclasses.dataclass(frozen=True)
class Check:
  """What one check found.

  Attributes:
    name: name of the check.
    passed: whether no test song was found; None if the check cannot be made.
    found: what was found, as a sentence.
    songs: ids of some songs that were found.
    expected: whether the way in which the data set was split has it so.
  """

  name: str
  passed: bool | None
  found: str
  songs: tuple[int, ...] = ()
  expected: bool = False


def copies(
  store: song_store.SongStore,
  queries: Int[np.ndarray, " queries"],
  others: song_store.SongStore,
  learned: Int[np.ndarray, " learned"],
) -> Int[np.ndarray, "copies 2"]:
  """Finds songs whose stored feature is, byte for byte, that of another.

  Args:
    store: store of the songs to look for.
    queries: positions of these songs in it.
    others: store of the songs to look among.
    learned: positions in `others`.

  Returns:
    Positions in `store` and in `others`, one pair for each song that has a
    copy, in the order of the queries.
  """

  def keyed(store, songs):
    columns = (songs, store.frames[songs], store.checksums[songs])
    for song, *key in zip(*(one.tolist() for one in columns), strict=True):
      yield song, tuple(key)

  by_key = collections.defaultdict(list)
  for song, key in keyed(others, learned):
    by_key[key].append(song)
  pairs = []
  for song, key in keyed(store, queries):
    if key not in by_key:
      continue
    feature = store.read_song(song)
    # Checksums in a large library agree by chance; the records decide.
    for other in by_key[key]:
      if np.array_equal(feature, others.read_song(other)):
        pairs.append((song, other))
        break
  return np.array(pairs, np.int64).reshape(-1, 2)


def _strategy(meta: dict[str, Any]) -> strategies.Strategy:
  config = meta["config"]
  return strategies.parse(
    config["contrast_combos"],
    config["audio_contrast_params"]["pair_generation_method"],
  )


def is_training_data(meta: dict[str, Any], data: dataset.DataSet) -> bool:
  """Returns whether a data set is the one that a run trained on, unchanged.

  Args:
    meta: the metadata of a checkpoint of the run.
    data: the data set.
  """
  if meta["data"]["fingerprint"] is None:  # Weights that no run trained.
    return False
  try:
    return data.fingerprint(_strategy(meta)) == meta["data"]["fingerprint"]
  except errors.InputError:  # It lacks the vectors that the run learned from.
    return False


def _training_data(
  meta: dict[str, Any], data: dataset.DataSet
) -> dataset.DataSet:
  """Returns the data set that the run trained on; refuses where it is gone."""
  if is_training_data(meta, data):
    return data
  directory = meta["config"]["data"]["dir"]
  if not directory:
    raise errors.InputError("a bundle does not say where its data set is")
  if not file_names.path(directory).is_dir():
    raise errors.InputError(
      f"{directory}, which the run trained on, does not exist"
    )
  trained_on = dataset.DataSet(directory)
  if not is_training_data(meta, trained_on):
    raise errors.InputError(
      f"{directory} has changed since the run trained on it (other songs, "
      "another split or other vectors)"
    )
  return trained_on


def _check_copies(data: dataset.DataSet, trained_on: dataset.DataSet) -> Check:
  tests = data.catalogue.rows_of(catalogues.TEST)
  learned = np.flatnonzero(trained_on.catalogue.learned)
  found = copies(data.store, tests, trained_on.store, learned)
  ids = data.catalogue.song_ids[found[:, 0]].tolist()
  among = f"{len(learned)} training and validation songs"
  if not len(found):
    return Check("copies", True, f"no test song has a copy among {among}")
  return Check(
    "copies",
    False,
    f"{len(found)} of {len(tests)} test songs have a copy of the same content "
    f"among {among}",
    tuple(ids[:_EXAMPLES]),
  )


def _check_near(data: dataset.DataSet, trained_on: dataset.DataSet) -> Check:
  tests = data.catalogue.rows_of(catalogues.TEST)
  learned = np.flatnonzero(trained_on.catalogue.learned)
  found = near_duplicates.find(data.store, tests, trained_on.store, learned)
  ids = data.catalogue.song_ids[found[:, 0]].tolist()
  return Check(
    "near duplicates",
    not len(found),
    f"{len(found)} of {len(tests)} test songs sound like one of "
    f"{len(learned)} training and validation songs (correlation of the "
    f"features at least {near_duplicates.CORRELATION}): the same recording, "
    "encoded, cut or mixed in another way",
    tuple(ids[:_EXAMPLES]),
  )


def _check_groups(data: dataset.DataSet) -> list[Check]:
  """Tells how many test songs share an artist or album with learned songs."""
  catalogue = data.catalogue
  tests = catalogue.rows_of(catalogues.TEST)
  split_by = song_groups.read_split_by(data.directory)
  checks = []
  for kind, lists in (
    (song_groups.ARTIST, catalogue.artists),
    (song_groups.ALBUM, catalogue.album_lists()),
  ):
    of_learned = lists.values[catalogue.learned[lists.list_index()]]
    known = np.isin(lists.values, of_learned)
    songs = np.intersect1d(lists.list_index()[known], tests)
    found = (
      f"{len(songs)} of {len(tests)} test songs share an {kind} with training "
      f"or validation songs (split by: {split_by or 'not on record'})"
    )
    ids = tuple(catalogue.song_ids[songs[:_EXAMPLES]].tolist())
    expected = split_by not in (kind, song_groups.ARTIST_ALBUM)
    checks.append(Check(f"{kind}s", not len(songs), found, ids, expected))
  return checks


def _check_split(
  data: dataset.DataSet, trained_on: dataset.DataSet
) -> list[Check]:
  """Checks what test songs have in common with those that were learned from."""
  checks = [_check_copies(data, trained_on), _check_near(data, trained_on)]
  if trained_on.directory == data.directory:
    checks += _check_groups(data)
  return checks


def _check_songs(
  name: str, what: str, songs: np.ndarray, catalogue: catalogues.Catalogue
) -> Check:
  """Checks that no test song is among some songs."""
  songs = np.unique(songs)
  tests = songs[catalogue.split[songs] == catalogues.TEST]
  ids = catalogue.song_ids[tests].tolist()
  verdict = f"{len(tests)} of the {len(songs)} songs of {what} are test songs"
  return Check(name, not len(tests), verdict, tuple(ids[:_EXAMPLES]))


def _check_batches(
  meta: dict[str, Any], trained_on: dataset.DataSet
) -> list[Check]:
  """Checks the songs of the first epoch, and of validation, as planned."""
  config, strategy = meta["config"], _strategy(meta)
  size, window = config["data"]["batch_size"], config["data"]["double_window"]
  training = trained_on.training_plan(
    strategy,
    size,
    double_window=window,
    # Configs of earlier versions lack the key.
    patches_per_song=config["data"].get("patches_per_song", 1),
    seed=config["seed"],
    epoch=0,
  )
  validation = trained_on.validation_plan(
    strategy, size, 1, double_window=window
  )
  pairs = [np.zeros(0, np.int64)]
  pairs += [p.ravel() for p in trained_on.catalogue.validation_pairs.values()]
  parts = {
    "training": ("the first epoch", training.songs),
    "validation": ("the validation batches", validation.songs),
    "validation pairs": ("the validation pairs", np.concatenate(pairs)),
  }
  return [
    _check_songs(name, what, songs.ravel(), trained_on.catalogue)
    for name, (what, songs) in parts.items()
  ]


def _check_table(
  name: str, path: pathlib.Path, expected: dict[str, str]
) -> Check:
  """Checks what vectors were made of, by their report.

  Args:
    name: name of the check.
    path: file of the vectors.
    expected: hashes of what they would be made of now.
  """
  report = path.with_suffix(".json")
  try:
    settings = storage.read_json(report)["settings"]
  except (OSError, ValueError, KeyError, TypeError) as error:
    return Check(name, None, f"{report} does not say how it was made ({error})")
  differing = [k for k, v in expected.items() if settings.get(k) != v]
  if differing:
    return Check(
      name,
      False,
      f"{path} was made of other songs, lists or another split than the "
      f"catalogue has now ({', '.join(differing)}): test songs may be in it",
    )
  return Check(
    name, True, f"{path} was made of training and validation songs alone"
  )


def _check_vectors(
  meta: dict[str, Any], trained_on: dataset.DataSet
) -> list[Check]:
  catalogue, folder = trained_on.catalogue, trained_on.directory
  checks = []
  if "cf" in meta["architecture"]:
    path = folder / dataset.PLAYLIST_VECTORS
    expected = vector_sources.of_playlist_vectors(catalogue)
    checks.append(_check_table("mode P", path, expected))
  if "genre_w2v" in meta["architecture"]:
    path = folder / dataset.GENRE_VECTORS
    expected = vector_sources.of_genre_vectors(catalogue)
    checks.append(_check_table("mode G", path, expected))
  return checks


def _check_recorded(
  learned: learned_songs.LearnedSongs, data: dataset.DataSet
) -> list[Check]:
  """Checks test songs against the songs that the run's folder has on file.

  Copies are looked for by length and checksum, since the songs may be gone.
  """
  catalogue, store = data.catalogue, data.store
  tests = catalogue.rows_of(catalogues.TEST)
  same = tests[learned.split_of(data)[tests] != catalogues.TEST]
  keys = zip(*(learned.songs[name].tolist() for name in _KEY), strict=True)
  known = set(keys)
  mine = zip(
    store.frames[tests].tolist(), store.checksums[tests].tolist(), strict=True
  )
  alike = tests[np.array([key in known for key in mine], bool)]
  on_file = (
    f"the {len(learned.songs)} songs that {learned_songs.FILE_NAME} lists"
  )
  return [
    Check(
      name,
      not len(found),
      f"{len(found)} of {len(tests)} test songs {verb} {on_file}",
      tuple(catalogue.song_ids[found[:_EXAMPLES]].tolist()),
    )
    for name, verb, found in (
      ("songs on file", "are among", same),
      ("copies on file", "have the length and checksum of one of", alike),
    )
  ]


def _check_beginning(meta: dict[str, Any]) -> list[Check]:
  """Tells where a run began with weights whose songs are not on record."""
  begun = meta.get(checkpoint_files.INIT_FROM)
  if begun is None or begun["songs_on_record"]:
    return []
  found = f"which songs {begun['name']} has learned from is not on record"
  return [Check("weights at the beginning", None, found)]


def check(
  meta: dict[str, Any],
  data: dataset.DataSet,
  learned: learned_songs.LearnedSongs | None = None,
) -> list[Check]:
  """Checks that neither a test song nor a copy of one took part in training.

  Args:
    meta: the metadata of the run's checkpoint.
    data: the data set that the run is evaluated on.
    learned: the songs that the run's folder has on file, which are checked
      where the data set has changed since.
  """
  checks = _check_beginning(meta)
  try:
    trained_on = _training_data(meta, data)
  except errors.InputError as error:
    checks += [Check("training data", None, str(error))]
    return checks + (_check_recorded(learned, data) if learned else [])
  checks += _check_split(data, trained_on)
  try:
    checks += _check_batches(meta, trained_on)
  except errors.InputError as error:
    checks.append(Check("training", None, str(error)))
  return checks + _check_vectors(meta, trained_on)


def check_vectors(
  name: str,
  data: dataset.DataSet,
  learned: learned_songs.LearnedSongs | None = None,
) -> list[Check]:
  """Checks what can be known of vectors whose training is not at hand.

  Args:
    name: what the vectors are called.
    data: the data set that they are evaluated on.
    learned: the songs that their encoder learned from; None if not known.
  """
  checks = _check_split(data, data)
  if learned:
    return checks + _check_recorded(learned, data)
  found = f"which songs {name} has learned from is not on record"
  return [*checks, Check("training data", None, found)]


def format_checks(checks: list[dict[str, Any]]) -> list[str]:
  """Returns the lines below the table, for checks as plain values."""
  lines = []
  if passed := [one["name"] for one in checks if one["passed"]]:
    lines.append(
      "Checked that no test song took part in training: " + ", ".join(passed)
    )
  for one in checks:
    if not one["passed"]:
      word = "NOT CHECKED" if one["passed"] is None else "LEAK"
      word = "SHARED" if one["expected"] else word
      songs = ", ".join(map(str, one["songs"]))
      examples = f" (such as {songs})" if songs else ""
      lines.append(f"{word}, {one['name']}: {one['found']}{examples}")
  return lines
