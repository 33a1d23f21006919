"""Converts Melon's spectrogram files to a song store.

Reads MELON_DIR/kakao_meta/song_meta.json and the spectrogram of each of its
songs, from MELON_DIR/arena_mel_*.tar as delivered (nothing is unpacked) and
from unpacked files MELON_DIR/arena_mel/{id // 1000}/{id}.npy, one or both. A
song found more than once is taken from the first usable place: the unpacked
file, then the tars in the order of their numbers.

    python -m preprocessing.melon_lmdb --melon_dir=~/melon --out=data/melon

writes into the data set's folder songs.lmdb and skipped.json: every song left
out with its id, file (TAR:MEMBER for one in a tar), reason and what was found.
Songs are left out that are missing, unreadable, of a wrong shape or type,
empty, too short, not finite, all zero, out of range or too large. More than
--max_skipped_share of them is an error, after all has been read.

After an interruption, the same command line goes on: finished tars are not read
again, and songs that were converted from an unfinished tar are skipped. Each
record has the same bytes, whatever the interruptions and the number of workers.
From a damaged tar, all whole songs before and behind the damage are used, and
the damaged range of bytes is printed; complete the tar, and the same command
line goes on.

The store takes half the bytes of the spectrograms: 120 GB for all of Melon.

Songs to leave out, which do not count for the share; it may be repeated:

    --exclude=published    the folders that the published text lists as missing
                           or corrupt (225, 227, 229, 230, 276, 277)
    --exclude=225,277      these folders of arena_mel
    --exclude=ids.txt      the songs of a file, one id a line
"""

import argparse
from collections.abc import Sequence

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.common import programs
from preprocessing.melon import converter


def _share(text: str) -> float:
  share = float(text)
  if not 0 <= share <= 1:
    raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
  return share


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and converts."""
  parser = command_line.parser("preprocessing.melon_lmdb", __doc__)
  add = parser.add_argument
  folder = {"type": command_line.path, "required": True}
  add("--melon_dir", **folder, help="source folder")
  add("--out", **folder, help="the data set's folder")
  add(
    "--min_frames",
    type=command_line.count,
    default=1,
    help="shortest song kept (1)",
  )
  add(
    "--exclude",
    action="append",
    default=[],
    metavar="WHICH",
    help="songs to leave out: 'published', numbers of folders with commas "
    "between, or a file of song ids, one a line; it may be repeated",
  )
  add(
    "--max_skipped_share",
    type=_share,
    default=converter.MAX_SKIPPED_SHARE,
    help="fail if more songs than this are left out (default %(default)s)",
  )
  add(
    "--workers",
    type=command_line.count,
    help="how many read and convert at a time (default: one a core); threads "
    f"up to {converter.MOST_THREADS} or below "
    f"{converter.LEAST_SONGS_FOR_PROCESSES} songs, processes beyond",
  )
  settings = vars(parser.parse_args(argv))
  melon_dir, data_dir = settings.pop("melon_dir"), settings.pop("out")
  with locks.hold(data_dir, parser.prog):
    store = converter.build_song_store(melon_dir, data_dir, **settings)
  split = programs.fit("python -m preprocessing.data_split")
  print(
    f"song store: {store}; next: {split} --melon_dir={melon_dir} "
    f"--data={data_dir}"
  )


if __name__ == "__main__":
  errors.run_command(main)
