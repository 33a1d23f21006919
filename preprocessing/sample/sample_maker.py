"""Makes a small data set of synthesised music in Melon's layout."""

from concurrent import futures
import dataclasses
import functools
import math
import multiprocessing
import os
import pathlib
from typing import Any

import numpy as np
import tqdm

from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.common import usable_cores
from pcl_jax.library import song_names
from preprocessing.melon import melon_meta
from preprocessing.melon import melon_source
from preprocessing.sample import sample_playlists
from preprocessing.sample import sample_score
from preprocessing.sample import sample_world
from preprocessing.sample import song_clips
from preprocessing.sample import synthesis

MARKER_FILE = "sample_melon.json"
FAULTS = (
  "missing",
  "truncated",
  "all_zero",
  "short",
  "minus_infinity",
  "plus_infinity",
)
_STARTED_FILE = "sample_melon.started.json"
SAMPLE_VERSION = 3  # To be raised when the same settings give other bytes.
_LENGTH_SPREAD = 0.2  # Songs last seconds * (1 - it .. 1 + it).
_SONGS_PER_CALL = 4


def _setting(default: float, what: str) -> Any:
  return dataclasses.field(default=default, metadata={"help": what})


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings that decide a sample."""

  songs: int = _setting(720, "number of songs")
  playlists: int = _setting(720, "number of playlists in the three files")
  artists: int = _setting(60, "number of artists, at most that of songs")
  seconds: float = _setting(12.0, "typical length of a song; a fifth off")
  seed: int = _setting(0, "decides everything that is drawn")
  noise: float = _setting(
    0.05, "share of a playlist's songs that ignore its theme"
  )
  eq_db: float = _setting(
    6.0,
    "strength of each song's random equaliser, in dB: the more, the less a "
    "mean spectrum tells",
  )
  fault_share: float = _setting(
    0.005,
    "share of the songs with each kind of fault, at least one song unless 0",
  )

  def as_dict(self) -> dict[str, Any]:
    """Returns plain values, fit for json, and the version of the sample."""
    return {"version": SAMPLE_VERSION, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class _Task:
  """A file to write: what is played, and what is wrong with it."""

  sheet: sample_score.Sheet
  fault: str | None
  path: pathlib.Path
  clip: pathlib.Path | None  # A file to hear it, where one is wanted.


_RULES = {  # The least and the most of each setting.
  "songs": (8, math.inf),  # One for each sub-genre.
  "playlists": (1, math.inf),
  "artists": (1, math.inf),
  "seconds": (1, 600),
  "seed": (0, math.inf),
  "noise": (0, 1),
  "eq_db": (0, 20),
  "fault_share": (0, 0.05),
  "processes": (1, math.inf),
}


def check_settings(**settings: float) -> None:
  """Refuses settings from which no sample can be made.

  Args:
    **settings: some of those of `make_sample`; `artists` together with `songs`.

  Raises:
    InputError: one is out of its range.
  """
  rules = _RULES | {"artists": (1, settings.get("songs", math.inf))}
  for name, value in settings.items():
    least, most = rules[name]
    if not least <= value <= most:
      wanted = f"at least {least}" if most == math.inf else f"{least} to {most}"
      raise errors.InputError(f"--{name} is {value}; it must be {wanted}.")


def find_record(
  out: pathlib.Path, whole: pathlib.Path
) -> dict[str, Any] | None:
  """Returns the record of a sample, finished or begun; None if there is none.

  Args:
    out: folder of the sample.
    whole: the folder that holds it and all that was made of it.

  Raises:
    InputError: the record cannot be read, or is of another version.
  """
  paths = [out / name for name in (MARKER_FILE, _STARTED_FILE)]
  path = next((one for one in paths if one.exists()), None)
  if path is None:
    return None
  try:
    found = storage.read_json(path)
    version = dict(found["settings"]).get("version")
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.InputError(
      f"{path} is not a readable record of a sample's settings, which "
      f"preprocessing.sample_melon writes. Delete {whole}, or give another "
      "folder."
    ) from error
  if version != SAMPLE_VERSION:
    raise errors.InputError(
      f"{whole} holds version {version} of the sample, and this program makes "
      f"version {SAMPLE_VERSION}, which is other music. Delete {whole}, and "
      "the same command makes it anew; or give another folder."
    )
  return found


def _prepare(out: pathlib.Path, settings: Settings) -> dict[str, Any] | None:
  """Claims the folder; returns the marker of a finished sample."""
  found = find_record(out, out)
  if found is not None:
    differing = storage.differences(found["settings"], settings.as_dict())
    if differing:
      raise errors.InputError(
        f"{out} holds a sample of other settings: {'; '.join(differing)}. "
        "Give those settings, another --out, or delete that folder."
      )
    return found if found["finished"] else None
  for name in (melon_meta.FOLDER, melon_source.FOLDER):
    if (out / name).exists():
      raise errors.InputError(
        f"{out / name} exists and was not made by preprocessing.sample_melon "
        f"(there is no {MARKER_FILE}): it would be overwritten. Give another "
        "--out."
      )
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.InputError(
      f"--out={out} cannot be made a folder ({error.strerror}). Give another."
    ) from error
  storage.write_json(
    out / _STARTED_FILE, {"settings": settings.as_dict(), "finished": False}
  )
  return None


def _draw_faults(settings: Settings) -> dict[str, list[int]]:
  """Draws which songs, by position, have which fault; none has two."""
  rng = np.random.default_rng([settings.seed, 6])
  each = math.ceil(settings.fault_share * settings.songs)
  order = rng.permutation(settings.songs).tolist()
  return {
    fault: sorted(order[i * each : (i + 1) * each])
    for i, fault in enumerate(FAULTS)
  }


def _draw_samples(
  settings: Settings, faults: dict[str, list[int]]
) -> list[int]:
  """Draws the length of each song, in samples."""
  rng = np.random.default_rng([settings.seed, 7])
  spread = rng.uniform(1 - _LENGTH_SPREAD, 1 + _LENGTH_SPREAD, settings.songs)
  samples = np.round(settings.seconds * spread * synthesis.RATE_HZ).astype(int)
  most = (song_patches.FRAMES - 3) * melspectrogram.SETTINGS.hop_samples
  for i in faults["short"]:
    samples[i] = min(samples[i], most) * rng.uniform(0.3, 1.0)
  return samples.tolist()


def _plan(
  out: pathlib.Path,
  settings: Settings,
  artists: list[sample_world.Artist],
  songs: list[sample_world.Song],
  faults: dict[str, list[int]],
  *,
  clips: bool,
) -> list[_Task]:
  """Returns the files that are not written yet."""
  fault_of = {i: fault for fault, ones in faults.items() for i in ones}
  tasks = []
  for i, samples in enumerate(_draw_samples(settings, faults)):
    path = out / melon_source.song_file(songs[i].song_id)
    if fault_of.get(i) != "missing" and not path.exists():
      sheet = sample_score.Sheet.of(
        songs[i], artists, settings.seed, samples, settings.eq_db
      )
      name = f"{songs[i].song_id}{song_clips.SUFFIX}"
      clip = out / song_names.CLIPS / name if clips else None
      tasks.append(_Task(sheet, fault_of.get(i), path, clip))
  return tasks


def _spoil(db: np.ndarray, fault: str | None, seed: list[int]) -> np.ndarray:
  """Returns a spectrogram with its fault."""
  if fault == "all_zero":
    return np.zeros_like(db)
  if fault in ("minus_infinity", "plus_infinity"):
    rng = np.random.default_rng(seed)
    frame = int(rng.integers(db.shape[1]))
    sign = -1.0 if fault == "minus_infinity" else 1.0
    db[:, frame : frame + 3] = sign * np.inf
  return db


def _write_song(task: _Task) -> None:
  """Plays a song and writes its file."""
  song = task.sheet.song
  samples = sample_score.play(task.sheet)
  if task.clip is not None:  # Before the file that says that a song is done.
    song_clips.write(task.clip, samples)
  power = melspectrogram.mel_power(samples)
  db = np.ascontiguousarray(melspectrogram.power_to_db(power).T)
  db = _spoil(db, task.fault, [task.sheet.seed, 8, song.song_id])
  task.path.parent.mkdir(parents=True, exist_ok=True)
  with storage.write_aside(task.path) as partial, open(partial, "wb") as file:
    np.save(file, db)
    if task.fault == "truncated":
      file.truncate(file.tell() // 3)


def _write_songs(
  out: pathlib.Path, tasks: list[_Task], processes: int, total: int
) -> None:
  """Writes files in some processes; which, and how many, changes no byte."""
  bar = functools.partial(
    tqdm.tqdm, desc="songs", total=total, initial=total - len(tasks)
  )
  if processes == 1 or len(tasks) <= 1:
    for task in bar(tasks, unit="song"):
      _write_song(task)
    return
  # Spawned: a fork of a process that has threads can hang.
  pool = futures.ProcessPoolExecutor(
    min(processes, len(tasks)), multiprocessing.get_context("spawn")
  )
  try:
    done = pool.map(_write_song, tasks, chunksize=_SONGS_PER_CALL)
    for _ in bar(done, unit="song"):
      pass
  except futures.BrokenExecutor as error:
    raise errors.RunError(
      f"a process that writes songs into {out} was ended or could not start: "
      "by the system, where memory ran out, or, in a program of your own, "
      'because it lacks `if __name__ == "__main__":`. The songs written so far '
      "are kept; the same settings go on with them, and --processes=1 needs no "
      "other process."
    ) from error
  finally:
    pool.shutdown(cancel_futures=True)


def make_sample(
  out: str | os.PathLike[str],
  *,
  processes: int | None = None,
  clips: bool = False,
  **settings: Any,
) -> dict[str, Any]:
  """Makes a sample, goes on with an interrupted one, or finds it finished.

  Args:
    out: folder; kakao_meta/, arena_mel/ and the marker are written into it.
    processes: how many processes synthesise; by default one for each core.
      The result does not depend on it.
    clips: whether the songs that are still to be synthesised are also written
      as short audio files, clips/ID.ogg.
    **settings: fields of `Settings`.

  Returns:
    The marker: settings, number of files, fault -> ids of the songs that have
    it.

  Raises:
    InputError: a setting is out of range, or the folder holds something else.
    RunError: one of the processes was ended.
  """
  out = pathlib.Path(out)
  known = Settings(**settings)
  processes = usable_cores.count() if processes is None else processes
  check_settings(**dataclasses.asdict(known), processes=processes)
  marker = _prepare(out, known)
  if marker is not None:
    return marker
  artists = sample_world.draw_artists(known.artists, known.seed)
  songs = sample_world.draw_songs(artists, known.songs, known.seed)
  faults = _draw_faults(known)
  tasks = _plan(out, known, artists, songs, faults, clips=clips)
  _write_songs(out, tasks, processes, known.songs)
  _write_metadata(out, known, artists, songs)
  marker = {
    "settings": known.as_dict(),
    "finished": True,
    "files": known.songs - len(faults["missing"]),
    "faults": {
      fault: [songs[i].song_id for i in ones] for fault, ones in faults.items()
    },
  }
  storage.write_json(out / MARKER_FILE, marker)
  (out / _STARTED_FILE).unlink()
  return marker


def _write_metadata(
  out: pathlib.Path,
  settings: Settings,
  artists: list[sample_world.Artist],
  songs: list[sample_world.Song],
) -> None:
  meta_dir = out / melon_meta.FOLDER
  meta_dir.mkdir(exist_ok=True)
  playlists = sample_playlists.draw_playlists(
    songs, artists, settings.playlists, settings.noise, settings.seed
  )
  files = sample_playlists.split_playlists(playlists, settings.seed)
  for name, records in files.items():
    storage.write_json(meta_dir / f"{name}.json", records)
  records = [sample_world.song_record(song, artists) for song in songs]
  storage.write_json(meta_dir / melon_meta.SONG_FILE, records)
  names = sample_world.genre_names()
  storage.write_json(meta_dir / melon_meta.GENRE_FILE, names)
