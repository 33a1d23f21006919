r"""Makes a data set of the music of free games, from packages of Debian.

  python -m preprocessing.free_music --out=data/free_music
  python -m preprocessing.free_music --out=data/free_music --unpacked=FOLDER

The packages are those of preprocessing/free_packages/packages.toml, which names
version, hash and licence of each (--list=FILE gives others). They are
downloaded by apt-get and unpacked; nothing is installed. --debs=FOLDER takes
.deb files from a folder, and --unpacked=FOLDER takes FOLDER/PACKAGE/usr/...,
as `dpkg-deb -x` leaves it, on a machine without apt-get or network. A package
of another version is taken, and its hash is shown beside the listed one.

Songs are the tracks of 30 s and more. Folders named sounds, soundfx, sfx,
voices and speech hold effects and are left out, and counted. Artist and genre
are those of the tags, where tags name them. The album is that of the tag, or
else the package. Playlists are the albums, and the scenarios of Wesnoth, whose
files name several tracks each.

Besides what preprocessing.own_library writes, --out has audio/ (the tracks),
licences.json (licence, version, hash and counts of each package) and licences/
(the copyright file of each package, which says what you may do with its music).

Interrupted, the same command goes on.
"""

from collections.abc import Sequence

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.common import locks
from pcl_jax.data.splits import song_groups
from preprocessing.free_packages import music_tree
from preprocessing.free_packages import package_list
from preprocessing.free_packages import package_source
from preprocessing.library import library_build
from preprocessing.library import library_report
from preprocessing.library import library_settings


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the data set."""
  parser = command_line.parser("preprocessing.free_music", __doc__)
  add, folder = parser.add_argument, {"type": command_line.path}
  add("--out", **folder, required=True, help="the data set's folder")
  places = parser.add_mutually_exclusive_group()
  places.add_argument("--debs", **folder, help="folder of .deb files")
  places.add_argument("--unpacked", **folder, help="folder of packages' trees")
  text = "packages to take (free_packages/packages.toml)"
  add("--list", **folder, default=package_list.DEFAULT, help=text)
  text = "do without packages that cannot be had"
  add("--allow_partial", action="store_true", help=text)
  text = "files decoded at once (cores, at most 8)"
  add("--threads", type=command_line.count, help=text)
  text = "what goes to one part as a whole (as it is in --out; at first song)"
  add("--split_by", choices=song_groups.SPLIT_BY, help=text)
  text = "make it again (nothing is decoded where only the split is another)"
  add("--force", action="store_true", help=text)
  args = parser.parse_args(argv)
  packages = package_list.read(args.list)
  source = package_source.Source(args.debs, args.unpacked)
  library_settings.check_packages()
  jax_setup.start()
  with locks.hold(args.out, parser.prog):
    known = {}

    def fill() -> None:
      known.update(
        music_tree.gather(
          packages, source, args.out, allow_partial=args.allow_partial
        )
      )

    report = library_build.build_library(
      args.out / music_tree.AUDIO,
      args.out,
      threads=args.threads,
      force=args.force,
      split_by=args.split_by,
      artist_folder="none",
      album_folder="1",
      albums_as_playlists=True,
      fill=fill,
    )
  print(library_report.summary(report, args.out))
  print(f"licences of {len(known)} packages: {args.out / music_tree.LICENCES}")


if __name__ == "__main__":
  errors.run_command(main)
