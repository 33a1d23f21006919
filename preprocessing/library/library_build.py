"""Makes a data set of a folder of audio files and playlists, or updates it."""

from collections.abc import Callable, Mapping
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import song_store
from pcl_jax.data.splits import stratify
from pcl_jax.library import audio_tags
from pcl_jax.library import music_files
from preprocessing.library import credits
from preprocessing.library import decoding
from preprocessing.library import library_meta
from preprocessing.library import library_report
from preprocessing.library import library_settings
from preprocessing.library import library_store
from preprocessing.library import library_vectors
from preprocessing.library import recognition
from preprocessing.library import song_records
from preprocessing.library import staging
from preprocessing.melon import catalogue_maker
from preprocessing.melon import melon_meta


def _check_kind(data_dir: pathlib.Path) -> None:
  """Refuses to replace what was not made here."""
  store = data_dir / song_store.FILE_NAME
  if store.exists() and not (data_dir / music_files.IDS).exists():
    raise errors.InputError(
      f"{store} was not made of audio files (there is no {music_files.IDS} "
      "next to it): give another --out."
    )


def _read_report(data_dir: pathlib.Path) -> dict[str, Any] | None:
  """Returns library.json of the finished data set, or None."""
  path = data_dir / library_report.REPORT
  return storage.read_made_json(path) if path.exists() else None


def _changes(
  audio_dir: pathlib.Path,
  then: dict[str, song_records.SongFile],
  report: dict[str, Any] | None,
) -> dict[str, int] | None:
  """Counts what is to be read again; None if files and playlists are as then.

  Args:
    audio_dir: the library's folder.
    then: path -> record of the files the data set was made of.
    report: its library.json, if there is one.
  """
  if report is None:
    return {}
  now = music_files.sound_stamps(audio_dir)
  lists = music_files.playlist_stamps(audio_dir)
  known = {
    name: tuple(stamp)
    for name, stamp in report.get("playlist_stamps", {}).items()
  }
  retried = [
    path
    for path, one in then.items()
    if now.get(path) == one.stamp
    and song_records.worth_another_try(audio_dir, one)
  ]
  counts = {
    "tried_again": len(retried),
    "playlist_files": len(dict(known.items() ^ lists.items())),
  }
  same = now == {path: one.stamp for path, one in then.items()}
  return None if same and not any(counts.values()) else counts


def _has_moved(
  audio_dir: pathlib.Path, data_dir: pathlib.Path, there: dict[str, Any]
) -> bool:
  """Returns whether the library lies in another folder now, and says so."""
  if there["audio_dir"] == os.fspath(audio_dir.resolve()):
    return False
  then = song_records.read_records(data_dir / song_records.FILE_NAME)
  now = music_files.sound_stamps(audio_dir)
  moved = recognition.is_moved(now, then)
  if moved:
    print(f"the library of {there['audio_dir']} lies in {audio_dir} now")
  return moved


def _write_metadata(
  audio_dir: pathlib.Path,
  folder: pathlib.Path,
  tags: Mapping[str, audio_tags.Tags],
  settings: dict[str, Any],
) -> dict[str, Any]:
  """Writes kakao_meta/ of the store's songs; returns what library.json says."""
  store = song_store.SongStore(folder / song_store.FILE_NAME)
  records = song_records.read_records(folder / song_records.FILE_NAME)
  ids = recognition.read_ids(folder / music_files.IDS)
  duplicates = {
    path: one.duplicate_of for path, one in records.items() if one.duplicate_of
  }
  found = library_meta.write_meta(
    audio_dir,
    folder / melon_meta.FOLDER,
    ids.ids,
    set(store.song_ids.tolist()),
    duplicates,
    ids.moved,
    tags,
    library_settings.rules(settings),
    settings["albums_as_playlists"],
  )
  frames_s = (
    melspectrogram.SETTINGS.hop_samples / melspectrogram.SETTINGS.sample_rate_hz
  )
  skipped = storage.read_made_json(folder / song_records.SKIPPED)
  return {
    "audio_dir": os.fspath(audio_dir.resolve()),
    "songs": len(store),
    "left_out": len(skipped),
    "gone": sum(one["file"] not in records for one in skipped),
    "too_short": sum(one.short_s is not None for one in records.values()),
    "hours": float(store.frames.sum(dtype=np.int64)) * frames_s / 3600,
    "duplicates": duplicates,
    "damaged": {
      path: one.damage
      for path, one in records.items()
      if one.damage and not one.reason
    },
    **song_records.count_silent(records.values()),
    **found,
  }


def _read_names(
  audio_dir: pathlib.Path, files: music_files.Found, settings: dict[str, Any]
) -> dict[str, audio_tags.Tags]:
  """Reads the tags of all files, and shows whose songs they will be."""
  print(f"{audio_dir}: {len(files.sound)} audio files")
  tags = library_meta.read_tags(audio_dir, files.sound)
  found = credits.credit(tags, library_settings.rules(settings))
  for line in library_report.about_artists(credits.report(found)):
    print(line)
  return tags


@dataclasses.dataclass(frozen=True)
class _Plan:
  """How a data set is made: with which settings, and what stays."""

  settings: dict[str, Any]
  wanted: dict[str, Any]  # What the songs are made of; see `staging`.
  parts: dict[int, int]  # Of the songs that keep their part of the split.
  is_other: bool  # Whether settings differ for which nothing is decoded.


def _plan(
  audio_dir: pathlib.Path,
  data_dir: pathlib.Path,
  asked: dict[str, Any],
  old: dict[str, Any] | None,
  *,
  force: bool,
) -> _Plan:
  """Compares what is asked for with what is there; refuses other settings."""
  there = library_settings.of_data_set(data_dir, old)
  settings = library_settings.complete(asked, there)
  others = library_settings.differing(there, settings)
  light = others & library_settings.LIGHT
  if old is not None and _has_moved(audio_dir, data_dir, there):
    light.add("audio_dir")
  if old is not None and not force:
    kept = {name: there[name] for name in there.keys() - light}
    staging.check_same(data_dir, kept, settings)
  songs = {
    name: settings[name] for name in (*library_settings.OF_DECODING, "min_s")
  }
  # Other settings of split and vectors alone need no decoding.
  anew = force and (
    not others or bool(others & set(library_settings.OF_DECODING))
  )
  wanted = {**songs, "anew": old is None or anew}
  begun = staging.begun(data_dir)
  if begun is not None and not force:
    staging.check_same(data_dir / staging.UNFINISHED, begun, songs)
    wanted["anew"] = begun["anew"]
  parts = {}
  if not others & set(library_settings.OF_SPLIT):
    parts = catalogue_maker.read_parts(data_dir)
  return _Plan(settings, wanted, parts, bool(light))


def _make(
  audio_dir: pathlib.Path,
  data_dir: pathlib.Path,
  folder: pathlib.Path,
  plan: _Plan,
  threads: int,
) -> dict[str, Any]:
  """Makes all parts of the data set in a folder; returns library.json."""
  settings = plan.settings
  files = music_files.look_through(audio_dir)
  tags = _read_names(audio_dir, files, settings)
  if not (folder / song_store.FILE_NAME).exists():
    base = None
    if (data_dir / song_store.FILE_NAME).exists():
      ids = recognition.read_ids(data_dir / music_files.IDS)
      base = library_store.Base(
        data_dir / song_store.FILE_NAME,
        song_records.read_records(data_dir / song_records.FILE_NAME),
        frozenset(ids.ids.values()),
        anew=plan.wanted["anew"],
      )
    window = library_store.Window(
      *(settings[name] for name in ("from_s", "to_s", "min_s", "channels"))
    )
    library_store.write_store(audio_dir, folder, base, window, threads)
  report = _write_metadata(audio_dir, folder, tags, settings)
  report["settings"] = settings
  try:
    made = catalogue_maker.make_catalogue(
      folder / melon_meta.FOLDER,
      folder,
      **{name: settings[name] for name in library_settings.OF_SPLIT},
      parts=plan.parts,
      force=True,  # A catalogue that exists is unfinished.
    )
  except stratify.TooFewSongs as error:
    why = library_report.left_out(report, folder)
    raise errors.InputError(" ".join([str(error), *why])) from error
  report["unavailable"] = library_vectors.make(folder, made, settings)
  report["passed_over"] = files.passed_over()
  storage.write_json(folder / library_report.REPORT, report)
  return report


def _update(
  audio_dir: pathlib.Path,
  data_dir: pathlib.Path,
  asked: dict[str, Any],
  *,
  force: bool,
  threads: int,
  fill: Callable[[], None] | None,
) -> dict[str, Any]:
  """Makes what is absent or has changed; see `build_library`."""
  while True:
    old, begun = _read_report(data_dir), staging.begun(data_dir)
    plan = _plan(audio_dir, data_dir, asked, old, force=force)
    if fill is not None:
      fill()
      fill = None
    then = song_records.read_records(data_dir / song_records.FILE_NAME)
    changes = _changes(audio_dir, then, old)
    if begun is None and changes is None and not (force or plan.is_other):
      print(
        f"nothing to do: {data_dir} is made of {old['audio_dir']} as it is; "
        "--force makes it again"
      )
      return old
    folder = staging.begin(data_dir, plan.wanted)
    report = _make(audio_dir, data_dir, folder, plan, threads)
    staging.finish(data_dir)
    after = song_records.read_records(data_dir / song_records.FILE_NAME)
    if old is not None:
      about = {"anew": plan.wanted["anew"], "split_kept": bool(plan.parts)}
      counts = changes and changes | recognition.count(then, after)
      print(library_report.change(data_dir, counts, **about))
    if begun != plan.wanted or _changes(audio_dir, after, report) is None:
      return report
    force = False  # Files have changed since the interrupted run saw them.


def build_library(
  audio_dir: pathlib.Path,
  data_dir: pathlib.Path,
  *,
  from_s: float = 0.0,
  to_s: float | None = None,
  min_s: float | None = None,
  channels: str | None = None,
  force: bool = False,
  threads: int | None = None,
  test_share: float | None = None,
  validation_share: float | None = None,
  dims: int | None = None,
  genre_dims: int | None = None,
  seed: int | None = None,
  split_by: str | None = None,
  albums_as_playlists: bool | None = None,
  fill: Callable[[], None] | None = None,
  **names: str | None,
) -> dict[str, Any]:
  """Makes, continues or updates the data set of a library.

  Args:
    audio_dir: the library's folder.
    data_dir: the data set's folder; it is made if need be.
    from_s: the begin of the part of every track that is used, in seconds.
    to_s: the end of that part; by default, and at most, the track's end.
    force: makes a finished data set again; songs keep their ids. Where only
      settings of the split and the vectors are others, nothing is decoded;
      with another share or seed the split is drawn anew.
    threads: how many files are decoded at once; by default one per core, at
      most 8.
    test_share: share of the songs kept for testing; for this and what follows,
      None is what the data set has, at first `library_settings.DEFAULTS`.
    validation_share: share of the songs kept for validation.
    dims: factors of the playlist vectors.
    genre_dims: size of the genre vectors.
    seed: seed of the split and of the vectors.
    split_by: whose songs all go to one part, of `song_groups.SPLIT_BY`.
    min_s: tracks that are shorter by more than half a second are left out. If
      this or what follows is another than before, nothing that is a song is
      decoded.
    channels: what is taken of several, one of `channel_mix.CHOICES`.
    albums_as_playlists: makes a playlist of each album of two songs or more.
    fill: makes the folder of audio, once the output was found fit for it.
    **names: fields of `credits.Rules`: how artists, albums and genres are taken
      from tags and folders.

  Returns:
    The content of library.json.

  Raises:
    InputError: the folder is absent or has nothing usable, the output is
      taken or was made with other settings, or a setting is bad.
  """
  library_settings.check_packages()
  some = channel_mix.MEAN if channels is None else channels
  window = library_store.Window(from_s, to_s, min_s or 0.0, some)
  library_settings.check_window(window)
  credits.Rules(**{k: v for k, v in names.items() if v is not None}).check()
  staging.move(data_dir)
  _check_kind(data_dir)
  asked = {
    "audio_dir": os.fspath(audio_dir.resolve()),
    "from_s": float(from_s),
    "to_s": None if to_s is None else float(to_s),
    "test_share": test_share,
    "validation_share": validation_share,
    "dims": dims,
    "genre_dims": genre_dims,
    "seed": seed,
    "split_by": split_by,
    "channels": channels,
    "min_s": None if min_s is None else float(min_s),
    "albums_as_playlists": albums_as_playlists,
    **names,
  }
  if fill is None and not audio_dir.is_dir():
    raise errors.InputError(
      f"{audio_dir} is not a folder: give the folder of your music as --audio."
    )
  how = {"threads": threads or decoding.default_threads(), "fill": fill}
  return _update(audio_dir, data_dir, asked, force=force, **how)
