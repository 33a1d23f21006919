"""Songs per second of the Melon converter, against reading its files alone.

python -m benchmarks.converter
python -m benchmarks.converter --songs=400 --tars=2 --rounds=3
python -m benchmarks.converter --folder=/mnt/disk --cold

Makes tars of made-up spectrograms of real lengths in a temporary folder, then
converts them and reads their bytes and no more, in turn, within one run: with
worker processes, with threads, and reading with as many threads. Prints
medians, extremes and the ratio to the reading round by round. From memory the
processor is the limit; with --cold the files are dropped from memory before
each pass, and the disk may be.
"""

import argparse
from collections.abc import Callable, Sequence
import concurrent.futures
import contextlib
import functools
import io
import json
import os
import pathlib
import shutil
import statistics
import tarfile
import tempfile
import time

import numpy as np

from benchmarks.parts import machine
from pcl_jax.audio import melspectrogram
from pcl_jax.common import errors
from pcl_jax.common import file_names
from preprocessing.melon import converter
from preprocessing.melon import melon_source

_READ_BYTES = 1 << 20
_USUAL_FRAMES, _MOST_FRAMES = 1876, 15_000
_LONG_SHARE = 0.02


def make_tars(
  folder: pathlib.Path, songs: int, tars: int
) -> list[pathlib.Path]:
  """Writes tars of made-up spectrograms and the metadata; returns the tars."""
  rng = np.random.default_rng(0)
  bands = melspectrogram.SETTINGS.mel_bands
  noise = rng.normal(-20.0, 30.0, (bands, _MOST_FRAMES + songs))
  noise = noise.astype(np.float32)
  meta = folder / "kakao_meta"
  meta.mkdir()
  records = []
  for number, ids in enumerate(np.array_split(np.arange(songs), tars)):
    with tarfile.open(folder / f"arena_mel_{number}.tar", "w") as tar:
      for song_id in ids.tolist():
        is_long = rng.random() < _LONG_SHARE
        frames = int(rng.integers(_USUAL_FRAMES, _MOST_FRAMES))
        frames = frames if is_long else _USUAL_FRAMES
        file = io.BytesIO()
        np.save(file, noise[:, song_id : song_id + frames])
        info = tarfile.TarInfo(melon_source.song_file(song_id))
        info.size = file.tell()
        file.seek(0)
        tar.addfile(info, file)
        records.append(
          {"id": song_id, "artist_id_basket": [], "album_id": None}
          | {"song_gn_gnr_basket": [], "song_gn_dtl_gnr_basket": []}
        )
  (meta / "song_meta.json").write_text(json.dumps(records))
  return melon_source.find_tars(folder)


def _drop_from_memory(paths: Sequence[pathlib.Path]) -> None:
  for path in paths:
    with open(path, "rb") as file:
      os.fsync(file.fileno())
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_one(path: pathlib.Path) -> None:
  buffer = memoryview(bytearray(_READ_BYTES))
  with open(path, "rb", buffering=0) as file:
    while file.readinto(buffer):
      pass


def _read_alone(paths: Sequence[pathlib.Path], workers: int) -> None:
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    list(pool.map(_read_one, paths))


def _convert(folder: pathlib.Path, workers: int, processes: bool) -> None:
  out = folder / "out"
  with contextlib.redirect_stdout(io.StringIO()):
    converter.build_song_store(
      folder, out, workers=workers, processes=processes
    )


def _line(name: str, values: list[float], unit: str) -> str:
  return (
    f"{name:<28}{statistics.median(values):>12,.4g} {unit}  "
    f"[{min(values):,.4g}, {max(values):,.4g}]"
  )


def measure(
  passes: dict[str, Callable[[], None]],
  before: Callable[[], None],
  songs: int,
  rounds: int,
) -> dict[str, list[float]]:
  """Times the passes in turn; returns songs a second of each, by round."""
  speeds = {name: [] for name in passes}
  for _ in range(rounds):
    for name, work in passes.items():
      before()
      begin = time.perf_counter()
      work()
      speeds[name].append(songs / (time.perf_counter() - begin))
  return speeds


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  cores = len(os.sched_getaffinity(0))
  parser.add_argument("--songs", type=int, default=2000)
  parser.add_argument("--tars", type=int, default=8)
  parser.add_argument("--workers", type=int, default=cores)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--cold", action="store_true", help="read from the disk")
  parser.add_argument(
    "--folder", type=file_names.path, help="where the temporary folder is made"
  )
  flags = parser.parse_args(argv)
  with tempfile.TemporaryDirectory(dir=flags.folder) as name:
    folder = pathlib.Path(name)
    tars = make_tars(folder, flags.songs, flags.tars)
    size = sum(path.stat().st_size for path in tars)

    def before() -> None:
      shutil.rmtree(folder / "out", ignore_errors=True)
      if flags.cold:
        _drop_from_memory(tars)

    convert = functools.partial(_convert, folder, flags.workers)
    passes = {
      "reading alone": lambda: _read_alone(tars, flags.workers),
      "converter, processes": functools.partial(convert, True),
      "converter, threads": functools.partial(convert, False),
    }
    passes["reading alone"]()  # Warms the page cache.
    load = os.getloadavg()[0]
    speeds = measure(passes, before, flags.songs, flags.rounds)
  print(
    f"{machine.describe()} after and {load:.1f} before; "
    f"{flags.songs} songs, {size / 1e9:.2f} GB in {flags.tars} tars, "
    f"from {'disk' if flags.cold else 'memory'}, "
    f"{flags.workers} workers, {flags.rounds} rounds: median [least, most]"
  )
  alone = speeds["reading alone"]
  for name, values in speeds.items():
    print(_line(name, values, "songs/s"))
    if values is not alone:
      ratios = [a / b for a, b in zip(values, alone, strict=True)]
      print(_line("  ratio to reading", ratios, "times"))
  megabytes = size / flags.songs / 1e6
  both = [statistics.median(values) for values in speeds.values()]
  print("MB/s: " + ", ".join(f"{one * megabytes:,.0f}" for one in both))


if __name__ == "__main__":
  errors.run_command(main)
