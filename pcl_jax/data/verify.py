"""Verifies a data set: every record against its checksum, and file by file.

Reads the whole song store, in the order it lies on the disk, and compares every
record's length and checksum with what is on file; then the catalogue and the
vectors with the store. Prints what is wrong, and exits 1 if anything is.

    python -m pcl_jax.data.verify data/melon
    python -m pcl_jax.data.verify data/melon --threads=4
"""

from collections.abc import Iterator, Sequence
import concurrent.futures
import functools
import multiprocessing
import pathlib
import signal
import sys

import lmdb
import numpy as np
import tqdm

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import programs
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import ragged
from pcl_jax.data import song_store

_SONGS_PER_CALL = 64
_INFINITY = 0x7C00  # In float16; NaN is above it.
_STALLED_S = 120  # Damaged pages may also keep a reader in a loop.
_SHOWN = 20  # Problems of one kind; the rest are counted.


def _check_song(store: song_store.SongStore, song: int) -> str | None:
  try:
    feature = store.read_song(song)
  except errors.InputError as error:
    return str(error)
  except lmdb.Error as error:
    return (
      f"song {store.song_ids[song]} of {store.path} cannot be read ({error}): "
      "the file's pages are damaged. Copy it again, or make it again."
    )
  # The checksum is right: what is wrong here was written wrong. This looks at
  # bits, since np.isfinite takes four times as long as a checksum.
  if (feature.view("<u2") & 0x7FFF).max(initial=0) >= _INFINITY:
    return f"song {store.song_ids[song]} of {store.path} is not finite"
  return None


def _read_store(path, threads, pipe) -> None:
  """Reads all songs and sends (songs, bytes, problems) as it goes."""
  try:
    store = song_store.SongStore(path, readahead=True)
  except errors.InputError as error:
    pipe.send((0, 0, [str(error)]))
    return
  check = functools.partial(_check_song, store)
  frame_bytes = 2 * song_store.MEL_BANDS
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    for start in range(0, len(store), _SONGS_PER_CALL):
      songs = range(start, min(start + _SONGS_PER_CALL, len(store)))
      found = [one for one in pool.map(check, songs) if one]
      size = int(store.frames[start : songs.stop].sum()) * frame_bytes
      pipe.send((len(songs), size, found))


def _check_store(path: pathlib.Path, threads: int = 2) -> list[str]:
  """Reads a song store in a process of its own, which damage may end."""
  # Not fork: the threads of JAX do not survive it.
  context = multiprocessing.get_context("spawn")
  receiver, sender = context.Pipe(duplex=False)
  child = context.Process(target=_read_store, args=(path, threads, sender))
  child.start()
  sender.close()
  problems, songs = [], 0
  with tqdm.tqdm(unit="B", unit_scale=True, desc="songs", disable=None) as bar:
    while receiver.poll(_STALLED_S):
      try:
        count, size, found = receiver.recv()
      except EOFError:  # The process has ended.
        break
      songs += count
      problems += found
      bar.update(size)
    else:
      child.kill()
  child.join()
  if child.exitcode:
    code = child.exitcode
    ending = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    problems.append(
      f"reading {path / 'data.mdb'} ended a process with {ending} after "
      f"{songs} songs (SIGKILL is for {_STALLED_S} s without progress): its "
      "pages are damaged. Copy it again, or delete its folder and make it "
      "again."
    )
  return problems


def _outside(values: np.ndarray, lowest: int, end: int) -> int:
  return int(((values < lowest) | (values >= end)).sum())


def _check_lists(
  name: str, lists: ragged.Ragged, count: int, lowest: int, end: int
) -> Iterator[str]:
  """Yields what is wrong with lists of numbers from lowest to end - 1."""
  ends_right = len(lists.offsets) == count + 1 and lists.offsets[0] == 0
  ends_right = ends_right and lists.offsets[-1] == len(lists.values)
  if not ends_right or (lists.lengths < 0).any():
    yield f"{name}: their offsets do not fit {count} lists"
    return
  if wrong := _outside(lists.values, lowest, end):
    yield f"{name}: {wrong} numbers are not in {lowest}..{end - 1}"
    return
  keys = lists.list_index().astype(np.int64) * end + lists.values
  if repeated := len(keys) - len(np.unique(keys)):
    yield f"{name}: {repeated} repetitions within a list"


def _check_catalogue(made: catalogues.Catalogue) -> Iterator[str]:
  """Yields what is wrong within a catalogue."""
  songs = len(made)
  if (np.diff(made.song_ids.astype(np.int64)) <= 0).any():
    yield "song_ids are not ascending"
  for name in ("split", "albums"):
    if len(getattr(made, name)) != songs:
      yield f"{name} has not one entry a song"
  if _outside(made.split, catalogues.NO_SPLIT, catalogues.TEST + 1):
    yield "split has other values than -1, 0, 1 and 2"
  end = int(made.artists.values.max(initial=0)) + 1
  codes = len(made.genre_codes) + 1
  yield from _check_lists("artists", made.artists, songs, 0, end)
  yield from _check_lists("genres", made.genres, songs, 1, codes)
  count = len(made.playlist_files)
  yield from _check_lists("playlists", made.playlists, count, 0, songs)
  for method, pairs in made.validation_pairs.items():
    if _outside(pairs, 0, songs) or pairs.shape[1:] != (2,):
      yield f"validation pairs of {method} are not pairs of rows"
    elif (made.split[pairs] != catalogues.VALIDATION).any():
      yield f"validation pairs of {method} hold songs of another split"


def _check_vectors(data: dataset.DataSet) -> Iterator[str]:
  for mode, (name, _) in dataset.VECTORS.items():
    path = data.directory / name
    if path.exists():
      try:
        vectors = data.vectors(mode, "")
      except errors.InputError as error:
        yield str(error)
        continue
      if bad := int((~np.isfinite(vectors)).sum()):
        yield f"{path}: {bad} of {vectors.size} numbers are not finite"


def verify(data_dir: pathlib.Path, *, threads: int = 2) -> list[str]:
  """Checks a data set's folder; returns what is wrong, a sentence each.

  Raises:
    InputError: there is no data set.
  """
  store_path = data_dir / song_store.FILE_NAME
  if not (store_path / "data.mdb").exists():
    raise errors.InputError(
      f"{store_path} does not exist: there is nothing to verify. Give the "
      "folder of a prepared data set."
    )
  problems = _check_store(store_path, threads)
  path = data_dir / catalogues.FILE_NAME
  try:
    made = catalogues.load(data_dir)
    problems += [f"{path}: {one}" for one in _check_catalogue(made)]
    if not problems:  # Else the store could end this process.
      problems += _check_vectors(dataset.DataSet(data_dir))
  except errors.InputError as error:
    problems.append(str(error))
  return problems


def main(argv: Sequence[str] | None = None) -> int:
  """Parses the command line and verifies; returns the exit code."""
  parser = command_line.parser("pcl_jax.data.verify", __doc__)
  add, text = parser.add_argument, "threads that compute checksums (default 2)"
  add("data", type=command_line.path, help="the data set's folder")
  add("--threads", type=command_line.count, default=2, help=text)
  flags = parser.parse_args(argv)
  problems = verify(flags.data, threads=flags.threads)
  for problem in problems[:_SHOWN]:
    print(programs.fit(problem), file=sys.stderr)
  if len(problems) > _SHOWN:
    print(f"and {len(problems) - _SHOWN} more", file=sys.stderr)
  print(f"{flags.data}: {len(problems) or 'no'} problems")
  return errors.EXIT_FAILED if problems else 0


if __name__ == "__main__":
  errors.run_command(main)
