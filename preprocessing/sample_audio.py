"""Makes audio files of synthesised music, a folder for each artist.

The music is that of preprocessing.sample_melon, as FLAC files: a library to try
those commands on that take audio. The same settings give the same bytes.
Interrupted, the same command line goes on.

    python -m preprocessing.sample_audio --out=data/sample_audio
    python -m pcl_jax.embed --workdir=runs/sample --audio=data/sample_audio
"""

from collections.abc import Sequence
import pathlib

import soundfile
import tqdm

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import storage
from preprocessing.sample import sample_maker
from preprocessing.sample import sample_score
from preprocessing.sample import sample_world
from preprocessing.sample import synthesis

_RECORD = ".sample_audio.json"  # Names with a dot are no songs of a library.


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
    songs: the number of songs.
    artists: the number of artists, at most that of songs.
    seconds: length of each song.
    seed: the seed of all draws.
    eq_db: strength of each song's random equaliser, in dB.

  Returns:
    The path of each song.

  Raises:
    InputError: a setting is out of range, or the folder was made with others.
  """
  settings = {
    "songs": songs,
    "artists": artists,
    "seconds": seconds,
    "seed": seed,
    "eq_db": eq_db,
  }
  sample_maker.check_settings(**settings)
  _record(out, settings | {"version": sample_maker.SAMPLE_VERSION})
  who = sample_world.draw_artists(artists, seed)
  paths = []
  drawn = sample_world.draw_songs(who, songs, seed)
  for song in tqdm.tqdm(drawn, "songs", unit="song"):
    path = out / f"artist_{song.artists[0]:03d}" / f"{song.song_id}.flac"
    paths.append(path)
    if path.exists():
      continue
    samples = round(seconds * synthesis.RATE_HZ)
    sheet = sample_score.Sheet.of(song, who, seed, samples, eq_db)
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.write_aside(path) as partial:
      audio = sample_score.play(sheet)
      soundfile.write(partial, audio, synthesis.RATE_HZ, format="FLAC")
  return paths


def _record(out: pathlib.Path, settings: dict[str, float]) -> None:
  """Notes the settings in the folder; refuses a folder of others."""
  path = out / _RECORD
  changed = []
  if path.exists():
    changed = storage.differences(storage.read_made_json(path), settings)
  if changed:
    raise errors.InputError(
      f"{out} was made with other settings ({'; '.join(changed)}): give "
      "another --out, or remove the folder."
    )
  out.mkdir(parents=True, exist_ok=True)
  storage.write_json(path, settings)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the files."""
  parser = command_line.parser("preprocessing.sample_audio", __doc__)
  parser.add_argument(
    "--out", required=True, type=command_line.path, help="folder"
  )
  numbers = {
    "songs": (120, "number of songs"),
    "artists": (12, "number of artists"),
    "seconds": (20.0, "length of each song"),
    "seed": (0, "seed of all draws"),
    "eq_db": (4.0, "strength of each song's random equaliser, in dB"),
  }
  command_line.add_numbers(parser, numbers)
  flags = vars(parser.parse_args(argv))
  paths = make_audio(flags.pop("out"), **flags)
  print(f"{len(paths)} songs in {paths[0].parents[1]}")


if __name__ == "__main__":
  errors.run_command(main)
