"""Did the encoder learn from what it is tested on?

A check looks at what training used: the batches' songs, the fixed validation
pairs, the tables of mode P and mode G, and the stored features themselves, a
copy of a test song being a test song too.
"""

import dataclasses
import json
import pathlib
from typing import Any

from jaxtyping import Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.data import strategies
from pcl_jax.data import vector_sources

_EXAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Check:
  """What one check found.

  Attributes:
    name: of the check.
    passed: None where it could not be made.
    found: a sentence.
    songs: ids of some songs that it is about.
  """

  name: str
  passed: bool | None
  found: str
  songs: tuple[int, ...] = ()


def copies(
  store: song_store.SongStore,
  sought: Int[np.ndarray, " sought"],
  others: song_store.SongStore,
  learned: Int[np.ndarray, " learned"],
) -> Int[np.ndarray, "copies 2"]:
  """Finds songs whose stored feature is, byte for byte, that of another.

  Args:
    store: of the songs that are looked for.
    sought: their positions in it.
    others: of the songs they are looked for among.
    learned: positions in `others`.

  Returns:
    Pairs of a position in `store` and one in `others`, one pair a copy found,
    ascending.
  """

  def keys(of, songs):
    frames = of.frames[songs].astype(np.uint64) << np.uint64(32)
    return frames | of.checksums[songs].astype(np.uint64)

  mine, theirs = keys(store, sought), keys(others, learned)
  alike = np.flatnonzero(np.isin(mine, theirs))
  order = np.argsort(theirs, kind="stable")
  pairs = []
  for place in alike.tolist():
    begin = np.searchsorted(theirs, mine[place], sorter=order)
    end = np.searchsorted(theirs, mine[place], "right", sorter=order)
    feature = store.read_song(int(sought[place]))
    # Checksums of a large library agree by chance; the records decide.
    for at in learned[order[begin:end]].tolist():
      if np.array_equal(feature, others.read_song(at)):
        pairs.append((int(sought[place]), at))
        break
  return np.array(pairs, np.int64).reshape(-1, 2)


def _strategy(meta: dict[str, Any]) -> strategies.Strategy:
  config = meta["config"]
  return strategies.parse(
    config["contrast_combos"],
    config["audio_contrast_params"]["pair_generation_method"],
  )


def is_training_data(meta: dict[str, Any], data: dataset.DataSet) -> bool:
  """Tells whether a data set is the one that a run trained on, unchanged.

  Args:
    meta: what a checkpoint of the run says about itself.
    data: the data set.
  """
  try:
    return data.fingerprint(_strategy(meta)) == meta["data"]["fingerprint"]
  except errors.InputError:  # It has not the vectors that the run learned from.
    return False


def _training_data(
  meta: dict[str, Any], data: dataset.DataSet
) -> dataset.DataSet | str:
  """Returns the data set that the run trained on, or why there is none."""
  if is_training_data(meta, data):
    return data
  directory = meta["config"]["data"]["dir"]
  if not pathlib.Path(directory).is_dir():
    return f"{directory}, which it trained on, is not there"
  try:
    trained_on = dataset.DataSet(directory)
  except errors.InputError as error:
    return str(error)
  if not is_training_data(meta, trained_on):
    return (
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


def _check_songs(
  name: str, what: str, songs: np.ndarray, catalogue: catalogues.Catalogue
) -> Check:
  """Checks that none of some songs is a test song."""
  songs = np.unique(songs)
  tests = songs[catalogue.split[songs] == catalogues.TEST]
  ids = catalogue.song_ids[tests].tolist()
  verdict = f"{len(tests)} of the {len(songs)} songs of {what} are test songs"
  return Check(name, not len(tests), verdict, tuple(ids[:_EXAMPLES]))


def _check_batches(
  meta: dict[str, Any], trained_on: dataset.DataSet
) -> list[Check]:
  """Looks at the plans by which the run read songs."""
  config, strategy = meta["config"], _strategy(meta)
  size, window = config["data"]["batch_size"], config["data"]["double_window"]
  training = trained_on.training_plan(
    strategy, size, double_window=window, seed=config["seed"], epoch=0
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
  """Checks that vectors were made of what may be learned from, no more.

  Args:
    name: of the check.
    path: of the vectors, beside which lies their report.
    expected: hashes of what they would be made of now.
  """
  report = path.with_suffix(".json")
  try:
    settings = json.loads(report.read_text(encoding="utf-8"))["settings"]
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


def check(meta: dict[str, Any], data: dataset.DataSet) -> list[Check]:
  """Checks that no test song, nor a copy of one, took part in training.

  Args:
    meta: what the run's checkpoint says about itself.
    data: the data set that it is evaluated on.
  """
  trained_on = _training_data(meta, data)
  if isinstance(trained_on, str):
    return [Check("training data", None, trained_on)]
  checks = [_check_copies(data, trained_on)]
  try:
    checks += _check_batches(meta, trained_on)
  except errors.InputError as error:
    checks.append(Check("training", None, str(error)))
  return checks + _check_vectors(meta, trained_on)


def format_checks(checks: list[dict[str, Any]]) -> list[str]:
  """Returns the checks' lines below the table.

  Args:
    checks: as plain values.
  """
  good = [one["name"] for one in checks if one["passed"]]
  lines = []
  if good:
    lines.append(
      "Checked that no test song took part in training: " + ", ".join(good)
    )
  for one in checks:
    if one["passed"]:
      continue
    word = "NOT CHECKED" if one["passed"] is None else "LEAK"
    songs = ", ".join(map(str, one["songs"]))
    lines.append(
      f"{word}, {one['name']}: {one['found']}"
      + (f" (such as {songs})" if songs else "")
    )
  return lines
