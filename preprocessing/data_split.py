r"""Makes a data set's catalogue: split, artists, genres, playlists, pairs.

Splits the songs of the song store into train, validation and test (80, 10 and
10 %), stratified over genre and sub-genre codes, draws the fixed validation
pairs of the four pair methods, and writes catalogue.npz (and its settings and
counts, data_split.json) into the data set's folder. MELON_DIR holds
kakao_meta/; for an own library it is the data set's folder itself. With
--split_by=album or artist, all songs of an album or artist go to one part; with
--split_by=artist_album, those of either; with --copies, all songs that are
one recording.

    python -m preprocessing.data_split --melon_dir=~/melon --data=data/melon
    python -m preprocessing.data_split --melon_dir=data/own --data=data/own

The published split and validation pairs (of Playlist pairs), as far as their
songs are in the song store; songs that the split does not name are left unused:

    python -m preprocessing.data_split --melon_dir=~/melon --data=data/melon \
        --split_from=split_ids.pkl --val_pairs_from=val_pairs.pkl
"""

import argparse
from collections.abc import Sequence

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.common import programs
from pcl_jax.data import catalogues
from pcl_jax.data.splits import song_groups
from preprocessing.melon import catalogue_maker
from preprocessing.melon import melon_meta


def _parser() -> argparse.ArgumentParser:
  parser = command_line.parser("preprocessing.data_split", __doc__)
  add = parser.add_argument
  folder = {"type": command_line.path, "required": True}
  add("--melon_dir", **folder, help="the folder that holds kakao_meta/")
  add("--data", **folder, help="the data set's folder")
  shares = {"type": float, "default": argparse.SUPPRESS}
  add("--test_share", **shares, help="share of all songs (default 0.1)")
  add("--validation_share", **shares, help="share of all songs (default 0.1)")
  add(
    "--split_by",
    choices=song_groups.SPLIT_BY,
    default=argparse.SUPPRESS,
    help="what goes to one part as a whole (default song)",
  )
  add(
    "--copies",
    type=command_line.path,
    help="json that python -m pcl_jax.duplicates --data wrote: songs that are "
    "one recording go to one part",
  )
  add(
    "--split_from",
    type=command_line.path,
    help="the published split_ids.pkl, in place of the shares",
  )
  add(
    "--val_pairs_from",
    type=command_line.path,
    help="the published val_pairs.pkl, in place of drawn Playlist pairs",
  )
  add("--seed", type=int, default=0, help="seed of split and pairs (default 0)")
  add(
    "--unknown_songs",
    choices=melon_meta.UNKNOWN_SONGS,
    default="error",
    help="what to do with songs of playlists that song_meta.json lacks: "
    "stop, or leave them out and count them (default %(default)s)",
  )
  add("--force", action="store_true", help="replace another split")
  return parser


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the catalogue."""
  parser = _parser()
  options = vars(parser.parse_args(argv))
  decide = ("test_share", "validation_share", "split_by")
  given = [name for name in options if name in decide]
  given += ["copies"] if options["copies"] else []
  if options["split_from"] and given:
    parser.error(f"--split_from decides the split; leave out {given}")
  melon_dir, data_dir = options.pop("melon_dir"), options.pop("data")
  with locks.hold(data_dir, parser.prog):
    catalogue_maker.make_catalogue(
      melon_dir / melon_meta.FOLDER, data_dir, **options
    )
  following = " and ".join(
    programs.fit(f"python -m preprocessing.{name} --data={data_dir}")
    for name in ("playlist_vectors", "genre_vectors")
  )
  print(f"catalogue: {data_dir / catalogues.FILE_NAME}; next: {following}")


if __name__ == "__main__":
  errors.run_command(main)
