"""Makes the synthesised sample, ready to train on, in one command.

  python -m preprocessing.sample_data --out=data/sample
  python -m preprocessing.sample_data --out=data/small --songs=96 --seconds=6

It synthesises the music, then makes song store, split and vectors from it, as
the single commands do. What exists already is not made again.
"""

from collections.abc import Sequence
import os

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.common import locks
from pcl_jax.common import programs
from pcl_jax.data import song_store
from pcl_jax.data.splits import song_groups
from preprocessing.library import library_settings
from preprocessing.melon import catalogue_maker
from preprocessing.melon import converter
from preprocessing.melon import melon_meta
from preprocessing.sample import sample_maker
from preprocessing.vectors import genre_words
from preprocessing.vectors import playlist_factors

MELON_FOLDER = "melon"
# Test songs are the queries of the evaluation: more than the paper's tenth.
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1
# The sample's planted faults; a real copy of Melon has its own limit.
_MOST_SKIPPED = 0.2

_SONGS_OF_AN_ARTIST = 12
_PLAYLIST_EPOCHS = 20  # Later ones change little where songs are few.


def make(
  data_dir: str | os.PathLike[str],
  *,
  songs: int = 720,
  seconds: float = 12.0,
  seed: int = 0,
  split_by: str = song_groups.SONG,
) -> None:
  """Makes a data set of synthesised music, or goes on making it.

  Args:
    data_dir: the data set's folder; Melon's files lie in `melon` inside it.
    songs: the number of songs.
    seconds: the length of most songs.
    seed: the seed of all draws.
    split_by: whose songs all go to one part, of `song_groups.SPLIT_BY`.

  Raises:
    InputError: the folder holds something else, a sample of another version
      for one, or another process makes it.
  """
  data_dir = file_names.path(data_dir)
  melon_dir = data_dir / MELON_FOLDER
  with locks.hold(data_dir, "the making of a sample"):
    found = sample_maker.find_record(melon_dir, data_dir)
    if found is None and (data_dir / song_store.FILE_NAME).exists():
      raise errors.InputError(
        f"{data_dir} holds songs, and {melon_dir} does not say of which "
        "version of the sample they are. Delete that folder, or give another."
      )
    if not (data_dir / genre_words.FILE_NAME).exists():  # It is made last.
      library_settings.check_packages()  # Before the minutes of synthesis.
    sample_maker.make_sample(
      melon_dir,
      clips=True,
      songs=songs,
      seconds=seconds,
      seed=seed,
      # Even in a small sample, two validation songs share an artist.
      artists=max(songs // _SONGS_OF_AN_ARTIST, 1),
      playlists=songs,
    )
    converter.build_song_store(
      melon_dir, data_dir, max_skipped_share=_MOST_SKIPPED
    )
    catalogue_maker.make_catalogue(
      melon_dir / melon_meta.FOLDER,
      data_dir,
      test_share=TEST_SHARE,
      validation_share=VALIDATION_SHARE,
      seed=seed,
      split_by=split_by,
    )
    playlist_factors.make_playlist_vectors(
      data_dir, seed=seed, epochs=_PLAYLIST_EPOCHS
    )
    genre_words.make_genre_vectors(data_dir, seed=seed)


def make_where_absent(
  data_dir: str | os.PathLike[str], *, songs: int, seconds: float
) -> None:
  """Makes the sample for a config that asks for one, and says so.

  Args:
    data_dir: `config.data.dir`; if it holds a finished data set, or one that
      was not made here, nothing happens.
    songs: `config.data.sample_songs`; 0 for no sample.
    seconds: `config.data.sample_seconds`.

  Raises:
    InputError: it holds a sample of another version.
  """
  data_dir = file_names.path(data_dir)
  # The vectors are made last.
  finished = (data_dir / genre_words.FILE_NAME).exists()
  begun = (data_dir / MELON_FOLDER).is_dir()
  foreign = not begun and data_dir.exists()
  if not songs or foreign:
    return
  sample_maker.find_record(data_dir / MELON_FOLDER, data_dir)
  if finished:
    return
  print(
    f"{data_dir} is not {'finished' if begun else 'there'}: making a sample of "
    f"{songs} songs in it"
  )
  make(data_dir, songs=songs, seconds=seconds)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the sample."""
  parser = command_line.parser("preprocessing.sample_data", __doc__)
  text = "folder of the data set"
  parser.add_argument("--out", type=command_line.path, required=True, help=text)
  numbers = {
    "songs": (720, "number of songs"),
    "seconds": (12.0, "length of most songs"),
    "seed": (0, "decides everything that is drawn"),
  }
  command_line.add_numbers(parser, numbers)
  text = "what goes to one part of the split as a whole (default %(default)s)"
  by = {"choices": song_groups.SPLIT_BY, "default": song_groups.SONG}
  parser.add_argument("--split_by", **by, help=text)
  flags = parser.parse_args(argv)
  jax_setup.start()
  make(
    flags.out,
    songs=flags.songs,
    seconds=flags.seconds,
    seed=flags.seed,
    split_by=flags.split_by,
  )
  train = programs.fit("python launch.py --config=configs/sample.py")
  print(
    f"{flags.out} is ready. Next: {train} --config.data.dir={flags.out} "
    "--workdir=runs/sample"
  )


if __name__ == "__main__":
  errors.run_command(main)
