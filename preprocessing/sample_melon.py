r"""Makes a sample: a small data set of synthesised music in Melon's layout.

Writes OUT/kakao_meta/ (song_meta.json, train.json, val.json, test.json,
genre_gn_all.json) and OUT/arena_mel/{id // 1000}/{id}.npy, [48, frames] in
Melon's dB. The music is composed and synthesised from the seed: there are eight
sub-genres in three genres, artists with habits of their own, moods that cross
genres, and playlists by sub-genre, mood and artist. A few files are missing or
broken, as in Melon; OUT/sample_melon.json, written last, lists them. The same
settings give the same bytes. Interrupted, the same command line goes on.

    python -m preprocessing.sample_melon --out=data/sample_melon

A tiny one for a trial, and a harder one:

    python -m preprocessing.sample_melon --out=/tmp/tiny --songs=40 \
        --playlists=30 --artists=10 --seconds=6
    python -m preprocessing.sample_melon --out=/tmp/hard --noise=0.5 --eq_db=7
"""

from collections.abc import Sequence
import dataclasses

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.common import programs
from preprocessing.sample import sample_maker


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the sample."""
  parser = command_line.parser("preprocessing.sample_melon", __doc__)
  add = parser.add_argument
  add("--out", required=True, type=command_line.path, help="folder to fill")
  add("--processes", type=int, help="default: one for each core")
  numbers = {
    field.name: (field.default, field.metadata["help"])
    for field in dataclasses.fields(sample_maker.Settings)
  }
  command_line.add_numbers(parser, numbers)
  flags = vars(parser.parse_args(argv))
  out = flags.pop("out")
  was_there = (out / sample_maker.MARKER_FILE).exists()
  with locks.hold(out, "preprocessing.sample_melon"):
    marker = sample_maker.make_sample(out, **flags)
  count, files = marker["settings"]["songs"], marker["files"]
  state = "is there already" if was_there else "written"
  store = programs.fit("python -m preprocessing.melon_lmdb")
  print(
    f"{out}: sample of {count} songs ({files} files) {state}. Next: {store} "
    f"--melon_dir={out} --out=data/sample"
  )


if __name__ == "__main__":
  errors.run_command(main)
