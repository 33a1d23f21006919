"""A data set that is made beside the one it replaces, and then takes its place.

It is made in DATA/unfinished. Once complete, that folder is renamed to
DATA/ready, and from then on it is the data set: its parts are moved to where
they belong, those of the old one aside, and whoever finds DATA/ready goes on
with that. So a crash leaves either data set whole, or the new one to be moved.
"""

import contextlib
import pathlib
import shutil
from typing import Any

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import song_store
from pcl_jax.data import song_writer
from pcl_jax.library import music_files
from preprocessing import data_split
from preprocessing import genre_vectors
from preprocessing import playlist_vectors
from preprocessing.library import library_store
from preprocessing.library import song_records

REPORT = "library.json"
META = "kakao_meta"
UNFINISHED = "unfinished"
_READY, _REPLACED = "ready", "replaced"
_BEGUN = "begun.json"
PARTS = (
  library_store.STORE,
  library_store.SKIPPED,
  music_files.IDS,
  song_records.FILE_NAME,
  META,
  catalogues.FILE_NAME,
  data_split.SETTINGS_FILE,
  playlist_vectors.FILE_NAME,
  playlist_vectors.FILE_NAME.replace(".npy", ".json"),
  playlist_vectors.STATE_NAME,
  genre_vectors.FILE_NAME,
  genre_vectors.FILE_NAME.replace(".npy", ".json"),
  REPORT,
)


def begun(data_dir: pathlib.Path) -> dict[str, Any] | None:
  """Returns what an interrupted run was making, or None if there is none."""
  path = data_dir / UNFINISHED / _BEGUN
  return storage.read_made_json(path) if path.exists() else None


def is_empty(data_dir: pathlib.Path) -> bool:
  """Returns whether an interrupted run has kept no song yet."""
  store = data_dir / UNFINISHED / library_store.STORE
  partial = store.with_name(store.name + ".partial")
  if store.exists() or not partial.exists():
    return not store.exists()
  with contextlib.closing(song_writer.SongWriter(store)) as writer:
    return not writer.done


def check_same(
  place: pathlib.Path, then: dict[str, Any], now: dict[str, Any]
) -> None:
  """Refuses to go on with what was made of something else or in another way.

  Args:
    place: what was made, for the message.
    then: its settings.
    now: the settings asked for; those that `then` lacks are not compared.

  Raises:
    InputError: they differ.
  """
  if then.get("audio_dir", now["audio_dir"]) != now["audio_dir"]:
    raise errors.InputError(
      f"{place} was begun from the folder {then['audio_dir']}, not from "
      f"{now['audio_dir']}: go on with that one, give another --out, or, if "
      "the library has moved, make the data set anew with --force."
    )
  differing = [
    f"--{name}={then[name]} there, {now[name]} now"
    for name in now
    if name in then and then[name] != now[name]
  ]
  if differing:
    raise errors.InputError(
      f"{place} was made with other settings ({'; '.join(differing)}), and "
      "songs of the two are not to be mixed: give the same, give another "
      "--out, or make the data set anew with --force."
    )


def begin(data_dir: pathlib.Path, settings: dict[str, Any]) -> pathlib.Path:
  """Returns the folder to make the new data set in.

  Args:
    data_dir: where it will be.
    settings: what `begun` returns if this run is interrupted. What is there
      stays if it was begun with these.
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
  (data_dir / UNFINISHED).rename(data_dir / _READY)
  move(data_dir)


def move(data_dir: pathlib.Path) -> None:
  """Goes on putting a complete new data set in its place, if there is one."""
  ready, replaced = data_dir / _READY, data_dir / _REPLACED
  shutil.rmtree(replaced, ignore_errors=True)
  if not ready.exists():
    return
  old = ready / "old"
  if not old.exists():
    # What is outside is old as long as not all of it is in this folder.
    aside = ready / "aside"
    aside.mkdir(exist_ok=True)
    for name in PARTS:
      if (data_dir / name).exists():
        (data_dir / name).rename(aside / name)
    aside.rename(old)
  for name in PARTS:
    if (ready / name).exists():
      (ready / name).rename(data_dir / name)
  ready.rename(replaced)
  shutil.rmtree(replaced)
