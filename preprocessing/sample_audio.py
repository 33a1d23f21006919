"""Makes audio files of synthesised music, a folder for each artist.

The music is that of preprocessing.sample_melon, as FLAC files that anything
can play: a library to try commands on that take audio. The same settings give
the same bytes; interrupted, the same command line goes on.

    python -m preprocessing.sample_audio --out=data/sample_audio
    python -m pcl_jax.embed --workdir=runs/sample --audio=data/sample_audio
"""

import argparse
from collections.abc import Sequence
import pathlib

import soundfile
import tqdm

from pcl_jax.common import errors
from preprocessing.sample import sample_score
from preprocessing.sample import sample_world
from preprocessing.sample import synthesis

_RULES = {  # Least and most of each setting.
  "songs": (8, 100_000),
  "artists": (1, 10_000),
  "seconds": (1.0, 600.0),
  "seed": (0, 2**32 - 1),
  "eq_db": (0.0, 20.0),
}


def make_audio(
  out: pathlib.Path,
  *,
  songs: int = 120,
  artists: int = 12,
  seconds: float = 20.0,
  seed: int = 0,
  eq_db: float = 4.0,
) -> list[pathlib.Path]:
  """Plays songs into files that are not there yet.

  Args:
    out: folder; OUT/ARTIST/ID.flac is written.
    songs: how many.
    artists: how many, at most as many as songs.
    seconds: length of each song.
    seed: draws everything.
    eq_db: strength of each song's random equaliser.

  Returns:
    The path of each song.

  Raises:
    InputError: a setting is out of range.
  """
  given = {
    "songs": songs,
    "artists": artists,
    "seconds": seconds,
    "seed": seed,
    "eq_db": eq_db,
  }
  for name, (least, most) in (_RULES | {"artists": (1, songs)}).items():
    if not least <= given[name] <= most:
      raise errors.InputError(
        f"--{name} is {given[name]}; it must be {least} to {most}."
      )
  who = sample_world.draw_artists(artists, seed)
  paths = []
  drawn = sample_world.draw_songs(who, songs, seed)
  for song in tqdm.tqdm(drawn, "songs", unit="song"):
    host, guest = who[song.artists[0]], who[song.artists[-1]]
    path = out / f"artist_{song.artists[0]:03d}" / f"{song.song_id}.flac"
    paths.append(path)
    if path.exists():
      continue
    sheet = sample_score.Sheet(
      seed=seed,
      song=song,
      host=host,
      guest=guest,
      samples=round(seconds * synthesis.RATE_HZ),
      eq_db=eq_db,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    soundfile.write(
      partial, sample_score.play(sheet), synthesis.RATE_HZ, format="FLAC"
    )
    partial.replace(path)
  return paths


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    prog="python -m preprocessing.sample_audio",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--out", required=True, type=pathlib.Path, help="folder")
  add("--songs", type=int, default=120, help="how many (default 120)")
  add("--artists", type=int, default=12, help="how many (default 12)")
  add("--seconds", type=float, default=20.0, help="of each (default 20)")
  add("--seed", type=int, default=0, help="draws everything (default 0)")
  add(
    "--eq_db",
    type=float,
    default=4.0,
    help="strength of each song's random equaliser, in dB (default 4)",
  )
  flags = vars(parser.parse_args(argv))
  paths = make_audio(flags.pop("out"), **flags)
  print(f"{len(paths)} songs in {paths[0].parents[1]}")


if __name__ == "__main__":
  errors.run_command(main)
