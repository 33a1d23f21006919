"""How many copies of recordings `pcl_jax.duplicates` finds, and what else.

python -m benchmarks.duplicates --audio=~/music --workdir=runs/demo
python -m benchmarks.duplicates --scores=30 --workdir=runs/demo

Of --recordings files of a folder, taken evenly from all of its folders, a part
of --seconds is copied as other files (program ffmpeg; mp3 at several rates,
Ogg Vorbis, AAC, Opus; louder, quieter, compressed, with another equaliser, with
a cut beginning or end). All are embedded, and pairs of one recording are looked
for: a pair of two different files of the folder is counted as wrong. Recall is
the share of copies that are found with their own recording; prints it for each
kind, with the least correlation of its copies and how many of these the vectors
have brought together at all. Prints the highest correlations of other pairs,
which are to be listened to: a folder may hold copies of its own.

With --scores, other takes are measured in place of copies: that many scores of
music21's corpus are played by fluidsynth (preprocessing.rendered_scores), each
once as drawn by a seed and then again with other instruments, another tempo or
both. No two of them are one recording, so all that is found is wrong. The last
kind, notes struck less hard, is nearly one: only the loudness differs.
"""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import functools
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
from pcl_jax.embedding.tables import song_table
from pcl_jax.library import music_files
from preprocessing.scores import orchestration
from preprocessing.scores import rendering
from preprocessing.scores import score_choice
from preprocessing.scores import score_notes

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
# Another take: whose instruments it has, how much faster and softer it is.
TAKES = {
  "instruments": ("other", 1.0, 0),
  "tempo +5 %": ("same", 1.05, 0),
  "tempo +1 %": ("same", 1.01, 0),
  "both": ("other", 1.05, 0),
  "velocity -20": ("same", 1.0, 20),
}
_Made = list[tuple[pathlib.Path, int, str]]


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
) -> _Made:
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


def _playings(parts: Sequence, name: str) -> dict[str, orchestration.Playing]:
  """Returns how a score is played first, as kind "", and how again."""
  first = orchestration.draw(parts, f"0 {name}")
  seeds = (f"{seed} {name}" for seed in range(1, 1000))
  drawn = (orchestration.draw(parts, seed) for seed in seeds)
  other = next(one for one in drawn if one.family != first.family)
  change = functools.partial(dataclasses.replace, first)
  return {"": first} | {
    kind: change(
      programs=(other if whose == "other" else first).programs,
      tempo=first.tempo * faster,
      velocity=first.velocity - softer,
    )
    for kind, (whose, faster, softer) in TAKES.items()
  }


def _beginning(
  parts: Sequence[Sequence[score_notes.Note]], seconds: float
) -> list[list[score_notes.Note]]:
  """Returns the notes that begin in time; no parts where the score ends."""
  if max(one.begin_s for part in parts for one in part) < seconds:
    return []
  begun = [[one for one in part if one.begin_s < seconds] for part in parts]
  return [part for part in begun if part]


def make_takes(count: int, out: pathlib.Path, seconds: float) -> _Made:
  """Plays the beginning of scores in several ways.

  Scores that cannot be read, or are of no length, are left out.
  """
  corpus, soundfont = (
    score_choice.corpus_folder(),
    rendering.find_soundfont(None),
  )
  made: _Made = []
  scores = iter(score_choice.choose(corpus, 3 * count, 0))
  for number in range(count):
    parts: list[list[score_notes.Note]] = []
    while not parts:
      score = next(scores)
      with contextlib.suppress(score_notes.Unreadable):
        parts = _beginning(score_notes.read(corpus / score.path).parts, seconds)
    print(f"{number:03d} {score.path}", flush=True)
    playings = _playings(parts, score.path)
    for i, (kind, playing) in enumerate(playings.items()):
      midi = orchestration.midi(parts, playing)
      path = out / f"{number:03d}_{i:02d}.flac"
      rendering.play(midi, soundfont, out).rename(path)
      made.append((path, number, kind))
  return made


def _mates(made: _Made) -> dict[tuple[int, int], str]:
  """Returns the rows of each file and its recording's first, and its kind."""
  own = {number: row for row, (_, number, kind) in enumerate(made) if not kind}
  return {
    (min(row, own[number]), max(row, own[number])): kind
    for row, (_, number, kind) in enumerate(made)
    if kind
  }


def _report(
  made: _Made,
  pairs: np.ndarray,
  found: list[duplicate_songs.Duplicate],
  least: float,
) -> None:
  """Prints what is found of each kind, and pairs of different recordings."""
  number = [one[1] for one in made]
  together = {tuple(one) for one in pairs.tolist()}
  values = {(one.first, one.second): one.correlation for one in found}
  print(
    f"{'kind':<14}{'files':>6}{'near':>6}{'found':>6}{'least':>8}{'most':>8}"
  )
  mates = _mates(made)
  for kind in dict.fromkeys(mates.values()):
    some = [one for one, its in mates.items() if its == kind]
    mine = [values.get(one, 0.0) for one in some]
    near = sum(one in together for one in some)
    hits = sum(
      value >= least and one in together
      for one, value in zip(some, mine, strict=True)
    )
    print(
      f"{kind:<14}{len(some):>6}{near:>6}{hits:>6}{min(mine):>8.3f}"
      f"{max(mine):>8.3f}"
    )
  kept = [one for one in together if values.get(one, -1.0) >= least]
  right = sum(number[a] == number[b] for a, b in kept)
  print(f"{len(kept)} pairs found, {right} within a recording or score")
  others = [key for key in values if number[key[0]] != number[key[1]]]
  others.sort(key=lambda key: -values[key])
  for a, b in others[:_SHOWN]:
    names = made[a][0].name, made[b][0].name
    print(f"  others: {values[a, b]:.3f} {' '.join(names)}")


def measure(make: Callable[[pathlib.Path], _Made], flags) -> None:
  """Embeds files that are made, looks for pairs, and prints what is found."""
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder)
    made = sorted(make(out))
    encoder = encoder_loading.load(flags.workdir, "best")
    encoder.embed_files([one[0] for one in made], out / "table.parquet")
    table = song_table.read_table(out / "table.parquet")
    by_path = {str(one[0]): one for one in made}
    made = [by_path[path] for path in table.paths]
    pairs = duplicate_songs.candidates(
      table.rows.unit, flags.neighbours, flags.min_cosine
    )
    # Pairs of a recording are compared even where no vector brings them near.
    every = np.unique(np.concatenate([pairs, [*_mates(made)]]), axis=0)
    found, unread = duplicate_songs.confirm(
      every, lambda row: decode.read_feature(made[row][0]), least=-1.0
    )
  print(f"{len(made)} files, {len(every)} pairs compared, {len(unread)} unread")
  _report(made, pairs, found, duplicate_songs.CORRELATION)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument("--audio", type=command_line.path, help="files to copy")
  text = "how many scores are played in several ways"
  what.add_argument("--scores", type=command_line.count, help=text)
  add("--workdir", required=True, help="the run of the encoder")
  add("--recordings", type=int, default=25)
  add("--seconds", type=float, default=40.0)
  add("--neighbours", type=int, default=20)
  add("--min_cosine", type=float, default=0.8)
  flags = parser.parse_args(argv)
  if flags.scores:
    measure(
      functools.partial(make_takes, flags.scores, seconds=flags.seconds), flags
    )
    return
  files = choose(flags.audio, flags.recordings)
  for number, file in enumerate(files):
    print(f"{number:03d} {file}")
  measure(functools.partial(make_copies, files, seconds=flags.seconds), flags)


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)
  errors.run_command(main)
