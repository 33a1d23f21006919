"""A data set that is made in DATA/unfinished and then replaces that in DATA.

Once it is complete, `complete.json` in that folder lists its parts. A run that
finds this list moves the parts to DATA. So after a crash, the old data set is
whole, or the new one is and only has to be moved.
"""

import contextlib
import pathlib
import shutil
from typing import Any

from pcl_jax.audio import channel_mix
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.library import music_files
from preprocessing.library import library_report
from preprocessing.library import song_records
from preprocessing.melon import catalogue_maker
from preprocessing.melon import melon_meta
from preprocessing.vectors import genre_words
from preprocessing.vectors import playlist_factors

UNFINISHED = "unfinished"
_BEGUN, _COMPLETE = "begun.json", "complete.json"
PARTS = (
  song_store.FILE_NAME,
  song_records.SKIPPED,
  music_files.IDS,
  song_records.FILE_NAME,
  melon_meta.FOLDER,
  catalogues.FILE_NAME,
  catalogue_maker.SETTINGS_FILE,
  playlist_factors.FILE_NAME,
  playlist_factors.FILE_NAME.replace(".npy", ".json"),
  playlist_factors.STATE_NAME,
  genre_words.FILE_NAME,
  genre_words.FILE_NAME.replace(".npy", ".json"),
  library_report.REPORT,
)


def begun(data_dir: pathlib.Path) -> dict[str, Any] | None:
  """Returns what an interrupted run was making; None if it has kept no song."""
  path = data_dir / UNFINISHED / _BEGUN
  store = path.with_name(song_store.FILE_NAME)
  if not store.exists():
    if not store.with_name(store.name + storage.PARTIAL).exists():
      return None
    with contextlib.closing(song_writer.SongWriter(store)) as writer:
      if not writer.done:
        return None
  if not path.exists():
    return None
  # Those of earlier versions are of the mean, and do not say so.
  return {"channels": channel_mix.MEAN} | storage.read_made_json(path)


def check_same(
  place: pathlib.Path, then: dict[str, Any], now: dict[str, Any]
) -> None:
  """Refuses to go on with what was made of something else or in another way.

  Args:
    place: the folder that was made, for the message.
    then: its settings.
    now: the settings asked for; those that `then` lacks are not compared.

  Raises:
    InputError: the settings differ.
  """
  then, now = ({k: x[k] for k in then.keys() & now} for x in (then, now))
  differing = storage.differences(then, now)
  if then.get("audio_dir") != now.get("audio_dir"):
    raise errors.InputError(
      f"{place} was begun from the folder {then['audio_dir']}, not from "
      f"{now['audio_dir']}: go on with that one, give another --out, or, if "
      "the library has moved, make the data set again with --force."
    )
  if differing:
    raise errors.InputError(
      f"{place} was made with other settings ({'; '.join(differing)}), and "
      "the two are not to be mixed: give the same, give another --out, or make "
      "the data set again with --force, which decodes nothing where only the "
      "split and the vectors are others."
    )


def begin(data_dir: pathlib.Path, settings: dict[str, Any]) -> pathlib.Path:
  """Returns the folder to make the new data set in.

  What an earlier run has made there stays if it was begun with these settings.
  """
  folder = data_dir / UNFINISHED
  if begun(data_dir) == settings:
    return folder
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  if (data_dir / music_files.IDS).exists():
    shutil.copyfile(data_dir / music_files.IDS, folder / music_files.IDS)
  storage.write_json(folder / _BEGUN, settings)
  return folder


def finish(data_dir: pathlib.Path) -> None:
  """Puts a complete new data set in the place of the old one."""
  folder = data_dir / UNFINISHED
  names = [name for name in PARTS if (folder / name).exists()]
  storage.write_json(folder / _COMPLETE, names)
  move(data_dir)


def move(data_dir: pathlib.Path) -> None:
  """Moves a complete new data set to its place, if there is one."""
  folder = data_dir / UNFINISHED
  if not (folder / _COMPLETE).exists():
    return
  names = storage.read_made_json(folder / _COMPLETE)
  for name in PARTS:
    old, new = data_dir / name, folder / name
    if new.exists() or name not in names:  # It has not been moved yet.
      if old.is_dir():
        shutil.rmtree(old)
      else:
        old.unlink(missing_ok=True)
    if new.exists():
      new.rename(old)
  (folder / _BEGUN).unlink(missing_ok=True)  # Else it could be gone on with.
  shutil.rmtree(folder)
