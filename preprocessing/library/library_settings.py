"""Settings of an own library's data set, and what others than before mean."""

import dataclasses
import math
import pathlib
from typing import Any

from pcl_jax.audio import channel_mix
from pcl_jax.common import errors
from pcl_jax.common import extras
from pcl_jax.data.splits import song_groups
from pcl_jax.data.splits import stratify
from preprocessing.library import credits
from preprocessing.library import library_store
from preprocessing.melon import catalogue_maker
from preprocessing.vectors import vector_files

# What decides split and vectors, but not the songs; not asked for, it stays as
# it is in the data set.
OF_SPLIT = catalogue_maker.SHARES
OF_DECODING = ("audio_dir", "from_s", "to_s", "channels")
OF_NAMES = tuple(field.name for field in dataclasses.fields(credits.Rules))
# Others than before are no reason to stop: nothing is decoded but tracks that
# were too short.
LIGHT = {"min_s", "albums_as_playlists", *OF_NAMES}
DEFAULTS = {
  "channels": channel_mix.MEAN,
  "min_s": 30.0,  # Shorter ones are mostly sound effects and jingles.
  "albums_as_playlists": False,
  **dataclasses.asdict(credits.Rules()),
  "test_share": 0.1,
  "validation_share": 0.1,
  "dims": 300,
  "genre_dims": 128,
  "seed": 0,
  "split_by": song_groups.SONG,
}


def check_packages() -> None:
  """Raises InputError where a package is absent that the last steps need."""
  extras.check("making a data set", "iterstrat", "gensim")


def check_window(window: library_store.Window) -> None:
  """Raises InputError where no part of a track can be meant."""
  channel_mix.check(window.channels)
  # Written so that not-a-number is refused.
  if not 0 <= window.min_s < math.inf:
    raise errors.InputError(
      f"--min_s is {window.min_s}; it is a number of seconds, at least 0."
    )
  if not 0 <= window.from_s < math.inf:
    raise errors.InputError(
      f"--from_s is {window.from_s}; it is a number of seconds, at least 0."
    )
  if window.to_s is not None and not window.from_s < window.to_s < math.inf:
    raise errors.InputError(
      f"--to_s is {window.to_s}; it is a number of seconds greater than "
      f"--from_s, which is {window.from_s}. Leave it out for the track's end."
    )


def of_data_set(
  data_dir: pathlib.Path, report: dict[str, Any] | None
) -> dict[str, Any]:
  """Returns the settings that a data set has now.

  Args:
    data_dir: the data set's folder; data_split may have split it again.
    report: the content of its library.json; None where there is none.
  """
  if report is None:
    return {}
  settings = report.get("settings", {"audio_dir": report["audio_dir"]})
  # Data sets of earlier versions have tracks of any length.
  earlier = {"min_s": 0.0, "channels": channel_mix.MEAN}
  earlier["split_by"] = song_groups.SONG
  return earlier | settings | catalogue_maker.read_shares(data_dir)


def complete(asked: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
  """Returns settings in which what is not asked for (None) is as before.

  Raises:
    InputError: songs cannot be divided so, or vectors have no such size.
  """
  left = {
    name: there.get(name, default)
    for name, default in DEFAULTS.items()
    if asked.get(name) is None
  }
  settings = asked | left
  stratify.check_shares(
    settings["test_share"], settings["validation_share"], settings["seed"]
  )
  sizes = {name: settings[name] for name in ("dims", "genre_dims")}
  vector_files.check_options("own_library", sizes, settings["seed"])
  return settings


def rules(settings: dict[str, Any]) -> credits.Rules:
  """Returns the rules for names among settings."""
  return credits.Rules(**{name: settings[name] for name in OF_NAMES})


def differing(there: dict[str, Any], settings: dict[str, Any]) -> set[str]:
  """Returns the names of settings that are others than those there."""
  both = there.keys() & settings.keys()
  return {name for name in both if there[name] != settings[name]}
