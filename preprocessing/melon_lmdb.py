"""Converts Melon's spectrogram files to a song store.

Reads MELON_DIR/kakao_meta/song_meta.json and, for each of its songs,
MELON_DIR/arena_mel/{id // 1000}/{id}.npy; writes songs.lmdb and skipped.json
(every song left out, with the reason) into the data set's folder. Interrupted,
the same command line goes on.

    python -m preprocessing.melon_lmdb --melon_dir=~/melon --out=data/melon

The folders that the published text lists as missing or corrupt, left out
unread (without this option each file is judged by what is in it):

    python -m preprocessing.melon_lmdb --melon_dir=~/melon --out=data/melon \
        --skip_folders=published
"""

import argparse
import collections
from collections.abc import Sequence
from concurrent import futures
import functools
import json
import pathlib
import tokenize
from typing import Any
import zipfile

import numpy as np
import tqdm

from pcl_jax import errors
from pcl_jax import melspectrogram
from pcl_jax.data import song_store
from preprocessing import melon_meta

PUBLISHED_SKIP_FOLDERS = (225, 227, 229, 230, 276, 277)
# 58,898 of Melon's 707,989 songs (8.3 %) never had a spectrogram, and about
# 1 % of the files are known to be bad.
MAX_SKIPPED_SHARE = 0.1
_SONGS_PER_FOLDER = 1000
_SONGS_PER_COMMIT = 256
_PATCH_FRAMES = 256
_MAX_DB = 700.0  # 20 log10 of the largest float32 is 770.
_SETTINGS_FILE = "melon_lmdb.json"
_UNREADABLE = (
  OSError,
  ValueError,
  EOFError,
  SyntaxError,
  MemoryError,
  OverflowError,
  TypeError,
  tokenize.TokenError,
  zipfile.BadZipFile,
)  # What np.load raises for damaged headers and bodies.


class UnusableFile(Exception):
  """A spectrogram file that is left out.

  Attributes:
    reason: one of a few words, by which the summary counts.
    detail: what was found.
  """

  def __init__(self, reason: str, detail: str):
    """Keeps the reason and what was found."""
    super().__init__(reason, detail)
    self.reason = reason
    self.detail = detail


def song_file(song_id: int) -> str:
  """Returns a song's file, relative to the folder of the data set."""
  return f"arena_mel/{song_id // _SONGS_PER_FOLDER}/{song_id}.npy"


def read_feature(path: pathlib.Path, min_frames: int = 1) -> np.ndarray:
  """Reads a spectrogram file in Melon's dB as the stored feature.

  Args:
    path: an npy file, [48, frames], 20 log10 of the mel power.
    min_frames: the fewest frames a usable file has.

  Returns:
    float16 [frames, 48].

  Raises:
    UnusableFile: the file is missing, unreadable or breaks a rule.
  """
  if not path.exists():
    where = "file" if path.parent.exists() else f"folder {path.parent.name}"
    raise UnusableFile("missing", f"the {where} does not exist")
  try:
    with open(path, "rb") as file:
      db = np.load(file, allow_pickle=False)
  except _UNREADABLE as error:
    text = " ".join(str(error).split())
    text = text.replace(str(path), path.name)  # The list names the file once.
    raise UnusableFile(
      "unreadable", f"{path.stat().st_size} bytes; {text}"
    ) from error
  if not isinstance(db, np.ndarray):
    raise UnusableFile("unreadable", "an npz archive, not one npy array")
  _check_array(db, min_frames)
  return melspectrogram.db_to_feature(db).T.astype("<f2")


def _check_array(db: np.ndarray, min_frames: int) -> None:
  bands = melspectrogram.SETTINGS.mel_bands
  shape = tuple(db.shape)
  if db.dtype.kind != "f":
    raise UnusableFile("wrong dtype", f"{db.dtype}, floating point is needed")
  if db.size == 0:
    raise UnusableFile("empty", f"shape {shape}")
  if db.ndim != 2 or shape[0] != bands:
    raise UnusableFile("wrong shape", f"{shape}, ({bands}, frames) is needed")
  if shape[1] < min_frames:
    raise UnusableFile(
      "too short", f"{shape[1]} frames, {min_frames} are needed"
    )
  bad = int(db.size - np.isfinite(db).sum())
  if bad:
    raise UnusableFile("not finite", f"{bad} of {db.size} values")
  if not db.any():
    raise UnusableFile("all zero", f"shape {shape}")
  if db.max() > _MAX_DB:
    raise UnusableFile(
      "out of range", f"{db.max():g} dB, at most {_MAX_DB:g} can be power"
    )


def _read_song(
  song_id: int,
  melon_dir: pathlib.Path,
  min_frames: int,
  skip_folders: frozenset[int],
) -> np.ndarray | dict[str, Any]:
  """Returns a song's feature, or its entry in skipped.json."""
  try:
    if song_id // _SONGS_PER_FOLDER in skip_folders:
      raise UnusableFile("skipped folder", "named by --skip_folders")
    return read_feature(melon_dir / song_file(song_id), min_frames)
  except UnusableFile as error:
    return {
      "id": song_id,
      "file": song_file(song_id),
      "reason": error.reason,
      "detail": error.detail,
    }


def _check_inputs(melon_dir: pathlib.Path, num_songs: int) -> None:
  if not num_songs:
    raise errors.InputError(
      f"{melon_dir / 'kakao_meta' / melon_meta.SONG_FILE} lists no song: "
      "there is nothing to convert."
    )
  if not (melon_dir / "arena_mel").is_dir():
    tars = sorted(melon_dir.glob("arena_mel_*.tar"))
    remedy = (
      f"Unpack the {len(tars)} files arena_mel_*.tar there first (tar -xf)."
      if tars
      else "Give with --melon_dir the folder that holds arena_mel/ and "
      "kakao_meta/."
    )
    raise errors.InputError(f"{melon_dir} has no folder arena_mel. {remedy}")


def _check_partial(
  store: pathlib.Path, settings_path: pathlib.Path, settings: dict[str, Any]
) -> None:
  """Refuses to go on with a store begun from other songs or settings."""
  partial = store.with_name(store.name + ".partial")
  if not partial.exists():
    melon_meta.write_json(settings_path, settings)
    return
  try:
    found = json.loads(settings_path.read_text(encoding="utf-8"))
  except (OSError, ValueError):
    found = None
  if found != settings:
    raise errors.InputError(
      f"{partial} was begun from another source or with other settings "
      f"({settings_path}: {found}; now: {settings}), and songs of the two "
      "would be mixed. Delete that folder to begin anew, or give another --out."
    )


def _convert(
  writer: song_store.SongWriter,
  song_ids: list[int],
  read: Any,
  threads: int,
) -> list[dict[str, Any]]:
  """Adds the songs that are not there yet; returns the entries of the others.

  A song left out by an interrupted run is looked at again: that is cheap, and
  the list needs no state of its own.
  """
  todo = [one for one in song_ids if one not in writer.done]
  if len(todo) < len(song_ids):
    print(f"going on: {len(song_ids) - len(todo)} songs are there already")
  skipped = []
  with (
    futures.ThreadPoolExecutor(threads) as pool,
    tqdm.tqdm(
      total=len(song_ids),
      initial=len(song_ids) - len(todo),
      unit="song",
      disable=None,
    ) as progress,
  ):
    for start in range(0, len(todo), _SONGS_PER_COMMIT):
      batch = todo[start : start + _SONGS_PER_COMMIT]
      results = list(pool.map(read, batch))
      writer.add(
        (song_id, result)
        for song_id, result in zip(batch, results, strict=True)
        if isinstance(result, np.ndarray)
      )
      skipped += [one for one in results if isinstance(one, dict)]
      progress.update(len(batch))
  return skipped


def _check_skipped(
  skipped: list[dict[str, Any]],
  num_songs: int,
  max_skipped_share: float,
  skipped_path: pathlib.Path,
) -> dict[str, int]:
  """Returns reason -> songs, most frequent first; refuses too large a share."""
  counts = collections.Counter(one["reason"] for one in skipped)
  reasons = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
  share = len(skipped) / num_songs
  if share > max_skipped_share:
    reason, count = next(iter(reasons.items()))
    raise errors.InputError(
      f"{len(skipped)} of {num_songs} songs ({share:.1%}) would be left out, "
      f"most often as {reason!r} ({count}); at most {max_skipped_share:.1%} "
      f"may be. {skipped_path} lists them all. Complete the files, or accept "
      "the loss with --max_skipped_share; the songs converted so far are kept "
      "and the same command line goes on."
    )
  return reasons


def _print_summary(
  store: song_store.SongStore, reasons: dict[str, int], num_songs: int
) -> None:
  s = melspectrogram.SETTINGS
  frames = int(store.frames.sum(dtype=np.int64))
  hours = frames * s.hop_samples / s.sample_rate_hz / 3600
  short = int((store.frames < _PATCH_FRAMES).sum())
  print(f"{len(store)} of {num_songs} songs, {frames} frames, {hours:.1f} h")
  print(
    f"{short} songs are shorter than {_PATCH_FRAMES} frames; they are kept and "
    "padded with silence when read"
  )
  left_out = sum(reasons.values())
  print(f"{left_out} songs left out ({left_out / num_songs:.1%})")
  for reason, count in reasons.items():
    print(f"  {reason}: {count}")


def build_song_store(
  melon_dir: pathlib.Path,
  data_dir: pathlib.Path,
  *,
  min_frames: int = 1,
  skip_folders: Sequence[int] = (),
  max_skipped_share: float = MAX_SKIPPED_SHARE,
  threads: int = 4,
) -> pathlib.Path:
  """Converts Melon's spectrogram files to data_dir/songs.lmdb.

  Does nothing but say so where the store exists; goes on where an earlier run
  was interrupted.

  Args:
    melon_dir: holds kakao_meta/ and arena_mel/.
    data_dir: the data set's folder; made if need be.
    min_frames: a song with fewer frames is left out.
    skip_folders: folders of arena_mel that are left out unread.
    max_skipped_share: of the songs of song_meta.json, in [0, 1].
    threads: read and convert the files.

  Returns:
    The folder of the store.

  Raises:
    InputError: the source is not there, too many songs are left out, or an
      unfinished store of another source is in the way.
  """
  melon_dir, data_dir = pathlib.Path(melon_dir), pathlib.Path(data_dir)
  store_path = data_dir / "songs.lmdb"
  if store_path.exists():
    print(f"{store_path} exists already: nothing to do")
    return store_path
  meta_dir = melon_dir / "kakao_meta"
  song_ids = melon_meta.read_songs(meta_dir).ids.tolist()
  _check_inputs(melon_dir, len(song_ids))
  data_dir.mkdir(parents=True, exist_ok=True)
  settings = {
    "song_meta_sha256": melon_meta.files_sha256(meta_dir)[melon_meta.SONG_FILE],
    "min_frames": min_frames,
    "skip_folders": sorted(set(skip_folders)),
  }
  _check_partial(store_path, data_dir / _SETTINGS_FILE, settings)
  read = functools.partial(
    _read_song,
    melon_dir=melon_dir,
    min_frames=min_frames,
    skip_folders=frozenset(skip_folders),
  )
  writer = song_store.SongWriter(store_path)
  try:
    skipped = _convert(writer, song_ids, read, threads)
    skipped_path = data_dir / "skipped.json"
    melon_meta.write_json(skipped_path, skipped)
    reasons = _check_skipped(
      skipped, len(song_ids), max_skipped_share, skipped_path
    )
    writer.finish({"kind": "melon", **settings, "left_out": reasons})
  finally:
    writer.close()
  _print_summary(song_store.SongStore(store_path), reasons, len(song_ids))
  return store_path


def _folders(text: str) -> tuple[int, ...]:
  if text == "published":
    return PUBLISHED_SKIP_FOLDERS
  return tuple(int(one) for one in text.split(",") if one)


def _share(text: str) -> float:
  share = float(text)
  if not 0 <= share <= 1:
    raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
  return share


def _count(text: str) -> int:
  count = int(text)
  if count < 1:
    raise argparse.ArgumentTypeError(f"{text} is not at least 1")
  return count


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and converts."""
  parser = argparse.ArgumentParser(
    prog="python -m preprocessing.melon_lmdb",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--melon_dir", required=True, help="source folder")
  parser.add_argument("--out", required=True, help="the data set's folder")
  parser.add_argument(
    "--min_frames",
    type=_count,
    default=1,
    help="leave shorter songs out (default %(default)s)",
  )
  parser.add_argument(
    "--skip_folders",
    type=_folders,
    default=(),
    help="folders of arena_mel to leave out: numbers with commas between, or "
    "'published'",
  )
  parser.add_argument(
    "--max_skipped_share",
    type=_share,
    default=MAX_SKIPPED_SHARE,
    help="fail if more songs than this are left out (default %(default)s)",
  )
  parser.add_argument(
    "--threads", type=_count, default=4, help="default %(default)s"
  )
  args = parser.parse_args(argv)
  store = build_song_store(
    pathlib.Path(args.melon_dir).expanduser(),
    pathlib.Path(args.out).expanduser(),
    min_frames=args.min_frames,
    skip_folders=args.skip_folders,
    max_skipped_share=args.max_skipped_share,
    threads=args.threads,
  )
  print(
    f"song store: {store}; next: python -m preprocessing.data_split "
    f"--melon_dir={args.melon_dir} --data={args.out}"
  )


if __name__ == "__main__":
  errors.run_command(main)
