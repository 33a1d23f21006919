"""How many copies of recordings `pcl_jax.duplicates` finds, and what else.

python -m benchmarks.duplicates --audio=~/music --workdir=runs/demo

Of --recordings files of a folder, taken evenly from all of its folders, a part
of --seconds is copied as other files (program ffmpeg; mp3 at several rates,
Ogg Vorbis, AAC, Opus; louder, quieter, compressed, with another equaliser, with
a cut beginning or end). All are embedded, and pairs of one recording are looked
for: a pair of two different files of the folder is counted as wrong. Recall is
the share of copies that are found with their own recording; prints it for each
kind, with the least correlation of its copies and how many of these the vectors
have brought together at all. Prints the highest correlations of other pairs,
which are to be listened to: a folder may hold copies of its own.
"""

import argparse
from collections.abc import Sequence
import pathlib
import subprocess
import tempfile

from absl import logging
import numpy as np

from pcl_jax.audio import decode
from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.embedding import duplicate_songs
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import song_table
from pcl_jax.library import music_files

_SHOWN = 10
# Suffix of the file, and arguments of ffmpeg.
CHANGES = {
  "mp3 64": ("mp3", "-b:a 64k"),
  "mp3 128": ("mp3", "-b:a 128k"),
  "mp3 320": ("mp3", "-b:a 320k"),
  "ogg q2": ("ogg", "-c:a libvorbis -q:a 2"),
  "aac 96": ("m4a", "-c:a aac -b:a 96k"),
  "opus 48": ("opus", "-c:a libopus -b:a 48k"),
  "gain -9 dB": ("flac", "-af volume=-9dB"),
  "gain +6 dB": ("flac", "-af volume=6dB"),  # May clip.
  "compressed": ("flac", "-af acompressor=threshold=0.1:ratio=4:makeup=2"),
  "bass +6 dB": ("flac", "-af bass=g=6"),
  "cut 1.01 s": ("flac", "-ss 1.01"),
  "cut 7.77 s": ("mp3", "-ss 7.77 -b:a 128k"),
  "cut end 10 s": ("mp3", "-t {shorter} -b:a 128k"),
}


def _copy(source: pathlib.Path, out: pathlib.Path, arguments: str) -> None:
  """Writes a copy of a WAV file by ffmpeg."""
  words = arguments.format(shorter=f"{_seconds(source) - 10:.2f}").split()
  command = ["ffmpeg", "-v", "error", "-y", "-i", str(source)]
  subprocess.run([*command, *words, str(out)], check=True)


def _seconds(path: pathlib.Path) -> float:
  command = ["ffprobe", "-v", "error", "-show_entries", "format=duration"]
  found = subprocess.run(
    [*command, "-of", "csv=p=0", str(path)], check=True, capture_output=True
  )
  return float(found.stdout)


def make_copies(
  files: Sequence[pathlib.Path], out: pathlib.Path, seconds: float
) -> list[tuple[pathlib.Path, int, str]]:
  """Writes parts of recordings and their copies.

  Returns:
    Each file, the number of its recording, and its kind; empty for the part.
  """
  made = []
  for number, file in enumerate(files):
    whole = out / f"{number:03d}.wav"
    cut = ["ffmpeg", "-v", "error", "-y", "-i", str(file), "-t", str(seconds)]
    subprocess.run([*cut, str(whole)], check=True)
    made.append((whole, number, ""))
    for i, (kind, (suffix, arguments)) in enumerate(CHANGES.items()):
      path = out / f"{number:03d}_{i:02d}.{suffix}"
      _copy(whole, path, arguments)
      made.append((path, number, kind))
  return made


def choose(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
  """Takes files evenly from a folder, longer than 20 s."""
  paths = [folder / one for one in music_files.look_through(folder).sound]
  rng = np.random.default_rng(0)
  found = []
  for i in rng.permutation(len(paths)).tolist():
    if (
      len(found) < count and decode.probe(paths[i]) and _seconds(paths[i]) > 20
    ):
      found.append(paths[i])
  return found


def _report(
  made: list[tuple[pathlib.Path, int, str]],
  pairs: np.ndarray,
  found: list[duplicate_songs.Duplicate],
  least: float,
) -> None:
  """Prints recall of each kind, and the pairs of different recordings."""
  keys = [one[1:] for one in made]
  number, kinds = [one[0] for one in keys], [one[1] for one in keys]
  together = {tuple(one) for one in pairs.tolist()}
  own = {n: row for row, (n, k) in enumerate(keys) if not k}
  values = {(one.first, one.second): one.correlation for one in found}
  print(f"{'kind':<14}{'copies':>7}{'near':>6}{'found':>6}{'least':>8}")
  for kind in CHANGES:
    rows = [row for row, one in enumerate(kinds) if one == kind]
    mates = [tuple(sorted((row, own[number[row]]))) for row in rows]
    mine = [values.get(one, 0.0) for one in mates]
    near = sum(one in together for one in mates)
    hits = sum(value >= least for value in mine)
    print(f"{kind:<14}{len(rows):>7}{near:>6}{hits:>6}{min(mine):>8.3f}")
  kept = [key for key, value in values.items() if value >= least]
  right = sum(number[a] == number[b] for a, b in kept)
  print(f"{len(kept)} pairs found, {right} of one recording")
  others = [key for key in values if number[key[0]] != number[key[1]]]
  others.sort(key=lambda key: -values[key])
  for a, b in others[:_SHOWN]:
    names = made[a][0].name, made[b][0].name
    print(f"  other recordings: {values[a, b]:.3f} {' '.join(names)}")


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--audio", type=command_line.path, required=True)
  add("--workdir", required=True, help="the run of the encoder")
  add("--recordings", type=int, default=25)
  add("--seconds", type=float, default=40.0)
  add("--neighbours", type=int, default=20)
  add("--min_cosine", type=float, default=0.8)
  flags = parser.parse_args(argv)
  files = choose(flags.audio, flags.recordings)
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder)
    made = sorted(make_copies(files, out, flags.seconds))
    encoder = encoder_loading.load(flags.workdir, "best")
    encoder.embed_files([one[0] for one in made], out / "table.parquet")
    table = song_table.read_table(out / "table.parquet")
    by_path = {str(one[0]): one for one in made}
    made = [by_path[path] for path in table.paths]
    for number, file in enumerate(files):
      print(f"{number:03d} {file}")
    pairs = duplicate_songs.candidates(
      table.rows.unit, flags.neighbours, flags.min_cosine
    )
    found, unread = duplicate_songs.confirm(
      pairs, lambda row: decode.read_feature(made[row][0]), least=-1.0
    )
  print(f"{len(made)} files, {len(pairs)} pairs compared, {len(unread)} unread")
  _report(made, pairs, found, duplicate_songs.CORRELATION)


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)
  errors.run_command(main)
