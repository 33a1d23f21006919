"""Makes a data set of a folder of audio files and playlists.

  python -m preprocessing.own_library --audio=~/music --out=data/mine

Songs are the audio files anywhere in the folder (what begins with a dot is
passed over), with the tags artist, album, genre, title and date where they
have them; several values of a tag are also split at ';'. A file without an
artist tag has the folder it lies in as its artist, or none if it lies in
--audio itself. Playlists are the *.m3u and *.m3u8 files anywhere in the folder.

Genre tags become codes as Melon has them: the n-th name in alphabetical order
is the genre GN<n>00 and the sub-genre GN<n>01 (GN0100 and GN0101 for n = 1).

In --out it writes, besides what training reads: song_ids.json (path -> id; a
song keeps its id for ever), skipped.json (songs left out and why), kakao_meta/
(Melon's metadata files) and, last, library.json (counts, and every playlist
entry that no song was found for). Interrupted, the same command goes on. A
finished data set is left alone; --force makes it anew, keeping the ids.
"""

import argparse
import collections
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import tqdm

from pcl_jax import audio_file
from pcl_jax import errors
from pcl_jax import melspectrogram
from pcl_jax.data import catalogue
from pcl_jax.data import song_store
from preprocessing import data_split
from preprocessing import genre_vectors
from preprocessing import library_meta
from preprocessing import playlist_vectors

# Suffixes of sound. Those that libsndfile does not read (AAC, WMA, ...) are
# here too, so that such songs are named in skipped.json.
_SOUND = (
  ".wav .wave .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .caf "
  ".w64 .rf64 .m4a .m4b .aac .wma .alac .ape .wv .mpc .tta .dsf .dff .ra"
).split()
_STORE = "songs.lmdb"
_IDS = "song_ids.json"
_SKIPPED = "skipped.json"
REPORT = "library.json"
_COMMIT_SONGS = 32
_COMMIT_BYTES = 1 << 27  # Hours of audio a song: committed sooner.
_MAX_THREADS = 8


def _number_songs(audio_dir: pathlib.Path, data_dir: pathlib.Path) -> dict:
  """Gives every song an id that it keeps; returns path -> id."""
  index = data_dir / _IDS
  here = os.fspath(audio_dir.resolve())
  ids: dict[str, int] = {}
  if index.exists():
    ids = library_meta.read_json(index)["ids"]
  paths = library_meta.find_files(audio_dir, _SOUND)
  if not paths:
    raise errors.InputError(
      f"{audio_dir} has no audio file in it or below. Readable are "
      f"{audio_file.FORMATS}: give the folder of your music as --audio."
    )
  free = max(ids.values(), default=-1) + 1
  new = [path for path in paths if path not in ids]
  ids |= {path: free + i for i, path in enumerate(new)}
  library_meta.write_json(index, {"audio_dir": here, "ids": ids})
  return ids


def _feature_or_reason(path: pathlib.Path) -> np.ndarray | str:
  """Returns a file's feature, or why it is left out."""
  if not path.exists():
    return "it is no longer in the folder"
  try:
    feature = audio_file.read_feature(path)
  except audio_file.UnreadableAudio as error:
    return error.reason
  except OSError as error:
    return f"it cannot be read ({error})"
  if feature.max() <= np.float16(melspectrogram.SILENCE):
    return "it is silent from beginning to end"
  return feature


def _features(
  audio_dir: pathlib.Path, songs: Iterable[tuple[str, int]], threads: int
) -> Iterator[tuple[str, int, np.ndarray | str]]:
  """Yields the features of songs, in their order, few of them waiting."""
  pool = futures.ThreadPoolExecutor(threads)
  waiting: collections.deque = collections.deque()
  try:
    for path, song_id in songs:
      done = pool.submit(_feature_or_reason, audio_dir / path)
      waiting.append((path, song_id, done))
      if len(waiting) > 2 * threads:
        path, song_id, done = waiting.popleft()
        yield path, song_id, done.result()
    while waiting:
      path, song_id, done = waiting.popleft()
      yield path, song_id, done.result()
  finally:
    pool.shutdown(cancel_futures=True)


def _fill(
  writer: song_store.SongWriter,
  songs: Iterable[tuple[str, int, np.ndarray | str]],
) -> list[dict[str, Any]]:
  """Commits features as they come; returns the songs left out."""
  skipped, pending, size = [], [], 0
  for path, song_id, feature in songs:
    if isinstance(feature, str):
      skipped.append({"id": song_id, "file": path, "reason": feature})
      continue
    pending.append((song_id, feature))
    size += feature.nbytes
    if len(pending) >= _COMMIT_SONGS or size >= _COMMIT_BYTES:
      writer.add(pending)
      pending, size = [], 0
  writer.add(pending)
  return skipped


def _write_store(
  audio_dir: pathlib.Path, data_dir: pathlib.Path, threads: int
) -> None:
  """Writes the song store and the list of songs left out."""
  ids = _number_songs(audio_dir, data_dir)
  writer = song_store.SongWriter(data_dir / _STORE)
  try:
    todo = sorted(
      (one for one in ids.items() if one[1] not in writer.done),
      key=lambda one: one[1],
    )
    bar = tqdm.tqdm(todo, "audio", len(ids), initial=len(ids) - len(todo))
    skipped = _fill(writer, _features(audio_dir, bar, threads))
    library_meta.write_json(data_dir / _SKIPPED, skipped)
    if not writer.done:
      first = skipped[0]
      raise errors.InputError(
        f"none of the {len(skipped)} audio files of {audio_dir} can be used; "
        f"the first is {first['file']}: {first['reason']}. All are in "
        f"{data_dir / _SKIPPED}. Readable are {audio_file.FORMATS}."
      )
    writer.finish({"made_by": "preprocessing.own_library"})
  finally:
    writer.close()


def _write_metadata(
  audio_dir: pathlib.Path, data_dir: pathlib.Path
) -> dict[str, Any]:
  """Writes kakao_meta/ of the store's songs; returns what library.json says."""
  store = song_store.SongStore(data_dir / _STORE)
  found = library_meta.write_meta(
    audio_dir,
    data_dir / "kakao_meta",
    library_meta.read_json(data_dir / _IDS)["ids"],
    set(store.song_ids.tolist()),
  )
  frames_s = (
    melspectrogram.SETTINGS.hop_samples / melspectrogram.SETTINGS.sample_rate_hz
  )
  return {
    "audio_dir": os.fspath(audio_dir.resolve()),
    "songs": len(store),
    "left_out": len(library_meta.read_json(data_dir / _SKIPPED)),
    "hours": float(store.frames.sum(dtype=np.int64)) * frames_s / 3600,
    **found,
  }


def _make_vectors(
  data_dir: pathlib.Path,
  made: catalogue.Catalogue,
  *,
  dims: int,
  genre_dims: int,
  seed: int,
  force: bool,
) -> dict[str, str]:
  """Makes the vectors there is data for; returns strategy -> what it lacks."""
  lacking = {}
  learned = made.split != catalogue.TEST
  if learned[made.playlists.values].any():
    playlist_vectors.make_playlist_vectors(
      data_dir, dims=dims, seed=seed, force=force
    )
  else:
    lacking["CM and Hybrid with cf"] = "playlists"
  if learned[made.genres.owners()].any():
    genre_vectors.make_genre_vectors(
      data_dir, dims=genre_dims, seed=seed, force=force
    )
  else:
    lacking["CM and Hybrid with genre_w2v"] = "genre tags"
  needs = {
    "Playlist": "a playlist with two training songs or more",
    "Artist": "an artist with two training songs or more",
    "Genre": "a genre tag with two training songs or more",
  }
  in_training = made.split == catalogue.TRAIN
  for method, need in needs.items():
    lists = made.pair_lists(method)
    songs = lists.owners()[in_training[lists.values]]
    if not (np.bincount(songs, minlength=1) > 1).any():
      lacking[f"A-IM and Hybrid with {method} pairs"] = need
  return lacking


def _check_begun(audio_dir: pathlib.Path, data_dir: pathlib.Path) -> None:
  """Refuses to go on with what was begun from something else.

  Raises:
    InputError: the store was not made of audio files, or of another folder's.
  """
  index = data_dir / _IDS
  here = os.fspath(audio_dir.resolve())
  for store in (data_dir / _STORE, data_dir / f"{_STORE}.partial"):
    if not store.exists():
      continue
    if not index.exists():
      raise errors.InputError(
        f"{store} was not made of audio files (there is no {_IDS} beside it): "
        "give another --out."
      )
    begun = library_meta.read_json(index)["audio_dir"]
    if begun != here:
      raise errors.InputError(
        f"{store} was begun from the folder {begun}, not from {here}: go on "
        f"with that one, delete {store} to begin anew, or give another --out."
      )


def _is_finished(data_dir: pathlib.Path, force: bool) -> bool:
  """Tells of a finished data set that is to stay; removes it if forced."""
  report = data_dir / REPORT
  if report.exists() and not force:
    return True
  if report.exists():
    # First, so that this command, interrupted, goes on with the new one.
    report.unlink()
    shutil.rmtree(data_dir / _STORE, ignore_errors=True)
    shutil.rmtree(data_dir / "kakao_meta", ignore_errors=True)
    for name in (_SKIPPED, catalogue.FILE_NAME, data_split.SETTINGS_FILE):
      (data_dir / name).unlink(missing_ok=True)
    for path in data_dir.glob("*_vectors.*"):
      path.unlink()
  return False


def build_library(
  audio_dir: pathlib.Path,
  data_dir: pathlib.Path,
  *,
  force: bool = False,
  threads: int | None = None,
  test_share: float = 0.1,
  validation_share: float = 0.1,
  dims: int = 300,
  genre_dims: int = 128,
  seed: int = 0,
) -> dict[str, Any]:
  """Makes, or goes on making, the data set of a folder of audio files.

  Args:
    audio_dir: the library's folder.
    data_dir: the data set's folder; made if need be.
    force: makes a finished data set anew, with the ids it has; replaces
      vectors that an interrupted run made with other settings.
    threads: how many files are decoded at once; by default one per core, at
      most 8.
    test_share: share of the songs kept for testing.
    validation_share: share of the songs kept for validation.
    dims: factors of the playlist vectors.
    genre_dims: size of the genre vectors.
    seed: of the split and of the vectors.

  Returns:
    The content of library.json.

  Raises:
    InputError: the folder is absent or has nothing usable, or the output is
      taken.
  """
  if not audio_dir.is_dir():
    raise errors.InputError(
      f"{audio_dir} is not a folder: give the folder of your music as --audio."
    )
  threads = threads or min(os.cpu_count() or 1, _MAX_THREADS)
  if _is_finished(data_dir, force):
    return library_meta.read_json(data_dir / REPORT)
  _check_begun(audio_dir, data_dir)
  data_dir.mkdir(parents=True, exist_ok=True)
  if not (data_dir / _STORE).exists():
    _write_store(audio_dir, data_dir, threads)
  report = _write_metadata(audio_dir, data_dir)
  made = data_split.make_catalogue(
    data_dir / "kakao_meta",
    data_dir,
    test_share=test_share,
    validation_share=validation_share,
    seed=seed,
    force=True,  # What is there is unfinished; nothing was trained with it.
  )
  report["unavailable"] = _make_vectors(
    data_dir, made, dims=dims, genre_dims=genre_dims, seed=seed, force=force
  )
  library_meta.write_json(data_dir / REPORT, report)
  return report


def summary(report: dict[str, Any], data_dir: pathlib.Path) -> str:
  """Words library.json for people, in a few lines."""
  lines = [
    f"{data_dir}: {report['songs']} songs, {report['hours']:.2f} hours, "
    f"{report['artists']} artists ({report['songs_without_artist']} songs "
    f"without), {report['genres']} genres ({report['songs_without_genre']} "
    f"songs without), {report['playlists']} playlists"
  ]
  if report["left_out"]:
    lines.append(f"{report['left_out']} songs left out: {_SKIPPED} says why")
  missing = sum(len(one["not_found"]) for one in report["playlist_files"])
  unread = sum(len(one["left_out"]) for one in report["playlist_files"])
  if missing or unread:
    lines.append(
      f"playlist entries that no song was found for: {missing}; that mean "
      f"songs left out: {unread}; {REPORT} lists them"
    )
  if report["tags_unreadable"]:
    number = len(report["tags_unreadable"])
    lines.append(f"files with unreadable tags: {number}; {REPORT} lists them")
  for strategy, need in report["unavailable"].items():
    lines.append(f"not available: {strategy} (the library lacks {need})")
  lines.append(
    "next: python launch.py --config=configs/ss_resnet.py "
    f"--config.data.dir={data_dir} --workdir=runs/{data_dir.name}"
  )
  return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the data set."""
  parser = argparse.ArgumentParser(
    prog="python -m preprocessing.own_library",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--audio", required=True, help="folder of audio files and playlists")
  add("--out", required=True, help="the data set's folder")
  add("--force", action="store_true", help="make a finished data set anew")
  add("--threads", type=int, help="files decoded at once (cores, at most 8)")
  add("--test_share", type=float, default=0.1, help="default %(default)s")
  add("--validation_share", type=float, default=0.1, help="default %(default)s")
  add("--dims", type=int, default=300, help="playlist vectors' factors (300)")
  add("--genre_dims", type=int, default=128, help="genre vectors' size (128)")
  add("--seed", type=int, default=0, help="of the split and the vectors (0)")
  args = parser.parse_args(argv)
  if args.threads is not None and args.threads < 1:
    parser.error(f"--threads is {args.threads}; it is at least 1")
  data_dir = pathlib.Path(args.out).expanduser()
  finished = (data_dir / REPORT).exists() and not args.force
  report = build_library(
    pathlib.Path(args.audio).expanduser(),
    data_dir,
    force=args.force,
    threads=args.threads,
    test_share=args.test_share,
    validation_share=args.validation_share,
    dims=args.dims,
    genre_dims=args.genre_dims,
    seed=args.seed,
  )
  if finished:
    print(
      f"nothing to do: {data_dir} is finished, made of {report['audio_dir']}; "
      "--force makes it anew"
    )
  print(summary(report, data_dir))


if __name__ == "__main__":
  errors.run_command(main)
