"""How long the server takes to answer, while requests come as they please.

python -m benchmarks.server
python -m benchmarks.server --songs=100000 --length=256 --rate=200 --seconds=30

Random unit rows are written as a table and served by `pcl_jax.serve` in a
process of its own. They have the spectrum of a real table (--rows=songs; more
widely spread: patches), or none (isotropic), where no row can be left unread.
This process asks for `similar_tracks` of random songs as the plugin of a music
server does. Requests come at random times (a Poisson process) of a mean rate,
whether those before them are answered or not, and the time of each begins when
it should have been sent. Client and server share the cores. Prints, with and
without the limit of songs of an artist, the median, the 99th percentile and the
most, in ms, and the processor time of both.
"""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse

import numpy as np

from pcl_jax.common import errors
from pcl_jax.embedding.tables import embedding_table

_CONNECTIONS = 64
_ARTISTS_OF = 10  # Songs of an artist.
_BATCH = 10_000
# Squared length of unit rows beyond the first 1, 2, 4, ... 256 of their axes:
# of 652 songs (493 recordings of free game music, 159 rendered scores), and of
# their 20,716 patches, by the encoder in the box. The first axis is nearly the
# mean.
_BEYOND = {
  "songs": (0.248, 0.196, 0.14, 0.0726, 0.0222, 9.47e-3, 3.63e-3, 1e-3, 8.4e-5),
  "patches": (
    0.318,
    0.263,
    0.198,
    0.118,
    0.051,
    0.0312,
    0.0186,
    7.9e-3,
    7.4e-4,
  ),
}
_ISOTROPIC = "isotropic"


def _drawn(
  rng: np.random.Generator, count: int, length: int, kind: str
) -> Iterator[np.ndarray]:
  """Yields batches of unit rows with a spectrum of `_BEYOND`, or with none."""
  spread, turn = np.ones(length), np.eye(length)
  if kind != _ISOTROPIC:
    known = np.log(_BEYOND[kind])
    axes = np.arange(1, length)
    beyond = np.exp(np.interp(np.log2(axes), np.arange(len(known)), known))
    spread = np.sqrt(-np.diff(np.r_[1, beyond, 0]))
    turn, _ = np.linalg.qr(rng.standard_normal((length, length)))
  for first in range(0, count, _BATCH):
    some = rng.standard_normal((min(_BATCH, count - first), length))
    if kind != _ISOTROPIC:
      some[:, 0] = 1
    rows = (some * spread @ turn).astype(np.float32)
    yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_table(path: pathlib.Path, songs: int, length: int, kind: str) -> None:
  """Writes a table of random unit rows, with artists and albums."""
  about = {
    "format_version": embedding_table.FORMAT_VERSION,
    "per_patch": False,
    "roots": ["/music"],
    "weights_sha256": "0" * 64,
    "workdir": "/runs/none",
    "checkpoint": "best",
    "step": 0,
  }
  like, rng = embedding_table.schema(length, about), np.random.default_rng(0)

  def parts():
    first = 0
    for vectors in _drawn(rng, songs, length, kind):
      numbers = range(first, first + len(vectors))
      first += len(vectors)
      artists = [f"Artist {i // _ARTISTS_OF}" for i in numbers]
      ids = [
        f"{one}/Song {i}.mp3" for one, i in zip(artists, numbers, strict=True)
      ]
      columns = {
        "id": ids,
        "path": [f"/music/{one}" for one in ids],
        "patches": [50] * len(ids),
        "padded": [False] * len(ids),
        "name": [one.removesuffix(".mp3").replace("/", " - ") for one in ids],
        "artists": [[one] for one in artists],
        "album": artists,
        "album_id": artists,
        "genres": [["Rock"]] * len(ids),
        "seconds": [200.0] * len(ids),
      }
      yield embedding_table.rows(columns, vectors, like)

  embedding_table.write(path, like, parts())


@contextlib.contextmanager
def serving(table: pathlib.Path) -> Iterator[tuple[tuple[str, int], int]]:
  """Yields host and port of a server in another process, and its number."""
  words = [f"--embeddings={table}", "--port=0"]
  with subprocess.Popen(
    [sys.executable, "-m", "pcl_jax.serve", *words],
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    found = re.search(r"http://([^:]+):(\d+)", process.stdout.readline())
    try:
      if found is None:
        raise errors.RunError("the server does not start: see above.")
      yield (found[1], int(found[2])), process.pid
    finally:
      process.terminate()


async def _ask(
  connections: asyncio.Queue, path: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
  """Asks over a free connection and reads the whole answer."""
  reader, writer = await connections.get()
  writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
  head = await reader.readuntil(b"\r\n\r\n")
  if not head.startswith(b"HTTP/1.1 200"):
    raise errors.RunError(f"the server answers {head[:40]!r} to {path}.")
  length = int(re.search(rb"content-length: (\d+)", head)[1])
  await reader.readexactly(length)
  connections.put_nowait((reader, writer))


async def measure(
  address: tuple[str, int], paths: Sequence[str], rate: float
) -> np.ndarray:
  """Returns the seconds that each answer took from when it was due."""
  connections: asyncio.Queue = asyncio.Queue()
  for _ in range(_CONNECTIONS):
    connections.put_nowait(await asyncio.open_connection(*address))
  gaps = np.random.default_rng(1).exponential(1 / rate, len(paths))
  begin = time.perf_counter() + 0.1
  due = begin + np.cumsum(gaps)

  async def one(path: str, at: float) -> float:
    await asyncio.sleep(max(at - time.perf_counter(), 0))
    await _ask(connections, path)
    return time.perf_counter() - at

  return np.array(await asyncio.gather(*map(one, paths, due.tolist())))


def paths_of(songs: int, count: int, n: int, limited: bool) -> list[str]:
  """Returns requests for random songs."""
  rows = np.random.default_rng(2).integers(songs, size=count)
  ids = [f"Artist {i // _ARTISTS_OF}/Song {i}.mp3" for i in rows.tolist()]
  more = {
    "n": n,
    "eliminate_duplicates": str(limited).lower(),
    "radius_similarity": "true",
  }
  return [
    f"/api/similar_tracks?{urllib.parse.urlencode({'item_id': one} | more)}"
    for one in ids
  ]


def _used(process: int) -> float:
  """Returns the processor time of a process, in seconds (Linux)."""
  text = pathlib.Path(f"/proc/{process}/stat").read_text("utf-8")
  user, system = text.rpartition(")")[2].split()[11:13]
  return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--songs", type=int, default=100_000)
  add("--length", type=int, default=256)
  add("--rate", type=float, default=200.0, help="requests a second")
  add("--seconds", type=float, default=30.0)
  add("-n", type=int, default=20, help="songs of an answer")
  kinds = (*_BEYOND, _ISOTROPIC)
  add("--rows", choices=kinds, default=kinds[0], help="what rows are like")
  flags = parser.parse_args(argv)
  print(
    f"{flags.songs} songs of length {flags.length} ({flags.rows}), "
    f"{flags.rate:g} requests a second for {flags.seconds:g} s, n {flags.n}; "
    f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
  )
  with tempfile.TemporaryDirectory() as folder:
    table = pathlib.Path(folder) / "table.parquet"
    write_table(table, flags.songs, flags.length, flags.rows)
    count = round(flags.rate * flags.seconds)
    with serving(table) as (address, server):
      warm = paths_of(flags.songs, 20, flags.n, True)
      asyncio.run(measure(address, warm, 20))
      for limited in (False, True):
        begin = [_used(one) for one in (server, os.getpid())]
        paths = paths_of(flags.songs, count, flags.n, limited)
        taken = 1000 * asyncio.run(measure(address, paths, flags.rate))
        used = [
          (_used(one) - before) / count * 1000
          for one, before in zip((server, os.getpid()), begin, strict=True)
        ]
        what = "3 of an artist" if limited else "no limit"
        print(
          f"{what:<15}{len(taken)} answers: median {np.median(taken):.1f} ms, "
          f"p99 {np.quantile(taken, 0.99):.1f}, most {taken.max():.1f}; "
          f"processor time of an answer {used[0]:.1f} ms (client {used[1]:.1f})"
        )


if __name__ == "__main__":
  errors.run_command(main)
