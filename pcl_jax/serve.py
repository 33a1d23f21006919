"""Serves a library: a page in the browser, and addresses for programs.

  python -m pcl_jax.serve --embeddings=music.parquet --audio=~/music
  python -m pcl_jax.serve --embeddings=music.parquet --host=0.0.0.0 --token=...

The table is one that python -m pcl_jax.embed wrote; where it is replaced, it is
read again. The page finds songs by name, plays them, and shows what sounds
alike, paths between songs and a map; /api/docs describes the addresses.

The plugin of AudioMuse-AI for Navidrome finds what it asks for here, too. The
ids of the music server are found by --music_server=http://localhost:4533 and
--music_user (password: environment variable PCL_JAX_MUSIC_PASSWORD), or stand
in a file: --ids=FILE, csv or json with id and path.

Only this machine may ask, unless --host says otherwise. Then a token is needed:
--token, or the environment variable PCL_JAX_TOKEN. The page takes it once, as
in http://name:8000/?token=TOKEN, programs as `Authorization: Bearer TOKEN`.
Only files of the table that lie in --audio are sent.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import functools
import gc
import os

from absl import logging

from pcl_jax.common import command_line
from pcl_jax.common import errors

_TOKEN, _PASSWORD = "PCL_JAX_TOKEN", "PCL_JAX_MUSIC_PASSWORD"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = command_line.parser("pcl_jax.serve", __doc__)
  add, path = parser.add_argument, {"type": command_line.path}
  text = "a table that pcl_jax.embed wrote"
  add("--embeddings", **path, required=True, help=text)
  text = "folder of the songs' audio (default: none is played)"
  add("--audio", **path, help=text)
  add("--port", type=int, default=8000, help="(default %(default)s)")
  text = "address to listen on (default %(default)s, this machine only)"
  add("--host", default="127.0.0.1", help=text)
  add("--token", help=f"what requests have to give (default: ${_TOKEN})")
  text = "a name, besides localhost, that the server answers to"
  add("--allow_host", nargs="+", default=[], metavar="NAME", help=text)
  add("--data", **path, help="the data set of the library, for blend")
  text = "the run or bundle of the table's encoder, for files that are sent"
  add("--workdir", help=text)
  text = "the most megabytes of such a file (default %(default)s)"
  add("--max_upload_mb", type=command_line.count, default=50, help=text)
  text = "file of a music server's ids: csv or json with id and path"
  add("--ids", **path, help=text)
  text = "address of a music server with OpenSubsonic, which has the ids"
  add("--music_server", help=text)
  text = f"account there; the password is in ${_PASSWORD}"
  add("--music_user", default="", help=text)
  text = "find silent songs, too (column silent of the table)"
  add("--keep_silent", action="store_true", help=text)
  flags = parser.parse_args(argv)
  if flags.ids and flags.music_server:
    parser.error("--ids and --music_server are two ways to the same: give one")
  if flags.token is None:
    flags.token = os.environ.get(_TOKEN, "")
  return flags


def _use_one_thread() -> None:
  """Has numpy's matrix products take one thread, if it is not loaded yet.

  The server answers several requests at once. More threads of one product only
  wait for each other, and keep the cores from the other requests.
  """
  for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def _import() -> None:
  """Raises InputError where a package of the extra is missing."""
  try:
    import starlette
    import uvicorn

    del starlette, uvicorn
  except ModuleNotFoundError as error:
    raise errors.InputError(
      f"the server needs the package {error.name}, which the base install "
      'leaves out. Install it with pip install "pcl_jax[server]".'
    ) from error


def _check(flags: argparse.Namespace) -> None:
  if not 0 <= flags.port < 1 << 16:
    raise errors.InputError(f"--port is {flags.port}: give 0 to 65535.")
  if flags.audio is not None and not flags.audio.is_dir():
    raise errors.InputError(
      f"--audio={flags.audio} is not a folder: give the one of your music."
    )


def served_library(flags: argparse.Namespace):
  """Reads the library that the flags name."""
  from pcl_jax.embedding.tables import song_table
  from pcl_jax.server import served_library

  def read() -> served_library.Library:
    table = song_table.read_table(flags.embeddings)
    if flags.keep_silent:
      table = dataclasses.replace(table, silent=frozenset())
    return served_library.Library(table, audio=flags.audio, data=flags.data)

  return served_library.ServedLibrary(flags.embeddings, read, _spare_songs)


def _spare_songs() -> None:
  """Has the collection of garbage pass over all that is there now.

  The songs stay: to look through all of them for garbage would hold up all
  answers for a while.
  """
  gc.unfreeze()  # Those of a table of before, which may be garbage.
  gc.collect()
  gc.freeze()


def sonic_api(flags: argparse.Namespace):
  """Returns the addresses for plugins, with the ids that the flags name."""
  from pcl_jax.server import open_subsonic
  from pcl_jax.server import outside_ids
  from pcl_jax.server import sonic_api

  songs = None
  if flags.ids:
    songs = functools.partial(outside_ids.read_file, flags.ids)
  elif flags.music_server:
    password = os.environ.get(_PASSWORD, "")
    songs = open_subsonic.MusicServer(
      flags.music_server, flags.music_user, password
    ).songs
  return sonic_api.SonicApi(songs)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and serves until it is interrupted."""
  flags = _arguments(argv)
  _use_one_thread()
  _import()
  from pcl_jax.common import jax_setup
  from pcl_jax.server import access_rules
  from pcl_jax.server import application
  from pcl_jax.server import listening

  access_rules.check(flags.host, flags.token)
  _check(flags)
  jax_setup.start()
  served, plugins = served_library(flags), sonic_api(flags)
  plugins.mapped(served.now())  # What is wrong shows at the beginning.
  options = application.Options(
    flags.token, flags.allow_host, flags.workdir, flags.max_upload_mb
  )
  app = application.build(served, options, plugins.endpoints())
  listening.run(app, flags.host, flags.port, served)


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(main)
