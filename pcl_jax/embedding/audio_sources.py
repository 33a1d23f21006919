"""The songs to embed: audio files, or those of a prepared data set."""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.audio import decode
from pcl_jax.audio import melspectrogram
from pcl_jax.audio import song_patches
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import song_store
from pcl_jax.library import audio_digests
from pcl_jax.library import music_files
from pcl_jax.library import song_labels
from pcl_jax.library import song_names

_Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Source:
  """Songs in a fixed order."""

  ids: list[str]  # The name of each song, all different.
  paths: list[str]  # Of each song's audio; empty where there is none.
  roots: list[str]  # The folders that were given; playlists may refer to them.
  # Changes when a song is added, removed, changed, moved or labelled anew.
  digest: str
  # What a song's file or record is like: of equal ones the content is equal.
  stamps: list[str]
  # The digest of a song's encoded audio, whatever its tags; empty where there
  # is none. Raises OSError where its file cannot be read.
  content: Callable[[int], str]
  # Yields the patches of a song, by its number; raises InputError, at any
  # moment, where the song cannot be read.
  pieces: Callable[[int], Iterator[song_patches.Piece]]
  # Artists, album, genres of a song; never raises.
  labels: Callable[[int], song_labels.Labels]
  # The length of a song, known once its pieces were read to the end.
  seconds: Callable[[int], float | None]
  has_files: bool = True  # Labels are read from a file for each song.
  channels: str = channel_mix.MEAN  # What is taken of several.
  # Path -> what is missing of a song that was read all the same.
  damaged: dict[str, str] = dataclasses.field(default_factory=dict)

  def columns(self, songs: list[int]) -> dict[str, list[str]]:
    """Returns what a table says of songs, given by their numbers."""
    return {
      "id": [self.ids[song] for song in songs],
      "path": [self.paths[song] for song in songs],
      "stamp": [self.stamps[song] for song in songs],
    }

  def select(self, songs: list[int]) -> "Source":
    """Returns some of the songs, by their numbers."""
    return dataclasses.replace(
      self,
      ids=[self.ids[song] for song in songs],
      paths=[self.paths[song] for song in songs],
      digest=_digest([self.digest, songs]),
      stamps=[self.stamps[song] for song in songs],
      content=lambda number: self.content(songs[number]),
      pieces=lambda number: self.pieces(songs[number]),
      labels=lambda number: self.labels(songs[number]),
      seconds=lambda number: self.seconds(songs[number]),
    )


def _digest(content: list[Any]) -> str:
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _seconds(frames: int | None) -> float | None:
  """Returns how long a song of some frames is; the first lies at 0."""
  if frames is None:
    return None
  settings = melspectrogram.SETTINGS
  hop_s = settings.hop_samples / settings.sample_rate_hz
  return max(frames - 1, 0) * hop_s


def _find_audio(places: list[pathlib.Path]) -> dict[str, str]:
  """Returns the path of each audio file and its id."""
  found: dict[str, str] = {}
  for place in places:
    if place.is_dir():
      files = music_files.look_through(place)
      if files.passed_over():
        console.say(f"{place}: {files.passed_over()}")
      for name in files.sound:
        path = os.path.abspath(place / name)
        found.setdefault(path, name if len(places) == 1 else str(place / name))
    elif place.exists():
      found.setdefault(os.path.abspath(place), str(place))
    else:
      raise errors.InputError(
        f"{place} does not exist: give audio files, or folders of them, as "
        "--audio."
      )
  return found


def audio_files(
  places: _Path | Iterable[_Path], channels: str = channel_mix.MEAN
) -> Source:
  """Returns audio files, decoded in bounded memory however long they are.

  Of folders, the audio files at any depth are meant. If one folder is given, an
  id is the path in it, else the path as it is given. A file that is found twice
  is one song. `channels` is what is taken of several channels, as
  `decode.audio_blocks` has it.

  Raises:
    InputError: a place does not exist, or there is no audio file at all.
  """
  if isinstance(places, str | os.PathLike):
    places = [places]
  places = list(map(file_names.path, places))
  if not places:
    raise errors.InputError(
      "no paths are given: give audio files, or folders of them."
    )
  found = _find_audio(places)
  if not found:
    raise errors.InputError(
      f"{', '.join(map(str, places))} has no audio file in it or below. "
      f"Readable are {decode.FORMATS}: give the folder of your music."
    )
  paths = list(found)
  stamps = list(map(music_files.stamp, paths))
  damaged: dict[str, str] = {}

  def warn(path: _Path, reason: str) -> None:
    damaged[os.fspath(path)] = reason
    console.warn(f"{file_names.shown(path)}: {reason}")

  frames: dict[int, int] = {}

  def blocks(number: int) -> Iterator[np.ndarray]:
    count = 0
    for block in decode.feature_blocks(
      paths[number], warn=warn, channels=channels
    ):
      count += len(block)
      yield block
    frames[number] = count

  return Source(
    ids=list(found.values()),
    paths=paths,
    roots=[os.path.abspath(one) for one in places if one.is_dir()],
    digest=_digest(
      [[found[path], path, *stamps[i]] for i, path in enumerate(paths)]
    ),
    stamps=[f"{size} bytes, {time_ns} ns" for size, time_ns in stamps],
    content=lambda number: audio_digests.digest(paths[number]),
    pieces=lambda number: song_patches.whole_patches(blocks(number)),
    labels=lambda number: song_labels.of_file(paths[number]),
    seconds=lambda number: _seconds(frames.get(number)),
    channels=channels,
    damaged=damaged,
  )


def data_set_songs(folder: str | os.PathLike[str]) -> Source:
  """Returns the songs of a prepared data set, checked as they are read.

  Raises:
    InputError: it has no song store, or one of other feature settings.
  """
  folder = file_names.path(folder)
  path = folder / song_store.FILE_NAME
  store = song_store.SongStore(path, readahead=True)
  numbers = store.song_ids.tolist()
  known, roots = song_names.audio_paths(folder)
  paths = [known.get(number, "") for number in numbers]
  labels = song_labels.of_data_set(folder, numbers)

  def pieces(number: int) -> Iterator[song_patches.Piece]:
    return song_patches.whole_patches([store.read_song(number)])

  return Source(
    ids=list(map(str, numbers)),
    paths=paths,
    roots=roots,
    # A store is never changed, but another may take its place.
    digest=_digest(
      [
        numbers,
        store.meta,
        store.frames.tolist(),
        music_files.stamp(path / "data.mdb"),
        paths,  # Where only these or labels change, a store stays the same.
        labels,
      ]
    ),
    stamps=[
      f"{frames} frames, crc32 {checksum:08x}"
      for frames, checksum in zip(
        store.frames.tolist(), store.checksums.tolist(), strict=True
      )
    ],
    content=lambda _: "",
    pieces=pieces,
    labels=labels.__getitem__,
    seconds=lambda number: _seconds(int(store.frames[number])),
    has_files=False,
    channels=channel_mix.of(store.meta["feature"]),
  )
