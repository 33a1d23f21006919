"""The audio of songs: files of the table below one folder, and no others."""

import mimetypes
import os
import pathlib
import re
import stat

from starlette import requests
from starlette import responses

from pcl_jax.common import file_names
from pcl_jax.server import api_parameters
from pcl_jax.server.endpoints import Library

PARAMETERS = (
  api_parameters.Parameter(
    "id",
    "a song: its id, the end of its path, or its name",
    required=True,
  ),
)
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")
_UNKNOWN = "application/octet-stream"


def _candidates(library: Library, row: int, audio: pathlib.Path) -> list[str]:
  """Returns where a song may lie: its path, and that in a moved library."""
  path = library.table.paths[row]
  if not path:
    return []
  found = [path]
  for root in library.table.about.get("roots", ()):
    inside = os.path.join(root, "")
    moved = os.path.join(audio, path.removeprefix(inside))
    # Folders of one table may have songs of one name.
    if path.startswith(inside) and library.row_of_path(moved) in (None, row):
      found.append(moved)
  return found


def place(library: Library, row: int) -> str:
  """Returns the path of a song for playlists.

  It is within the folder whose audio is served, if the song is found there;
  else, and without such a folder, it is that of the table.
  """
  path, audio = library.table.paths[row], library.audio
  if audio is None:
    return path
  folder = os.path.join(os.path.abspath(audio), "")
  real_folder = os.path.join(os.path.realpath(audio), "")
  for one in _candidates(library, row, pathlib.Path(folder)):
    real = os.path.realpath(one)
    if not os.path.exists(real):
      continue
    if one.startswith(folder):
      return one
    if real.startswith(real_folder):
      return os.path.join(folder, real.removeprefix(real_folder))
  return path


def find(library: Library, row: int) -> tuple[str, os.stat_result]:
  """Returns the file of a song, without links on the way, and its status.

  Raises:
    Refusal: no audio is served, or the file is gone, lies outside of the
      folder or is none.
  """
  if library.audio is None:
    raise api_parameters.Refusal(
      404, "the server has no audio: start it with --audio=FOLDER."
    )
  name = file_names.shown(library.ids[row])
  folder = os.path.join(os.path.realpath(library.audio), "")
  outside = False
  for path in _candidates(library, row, library.audio):
    real = os.path.realpath(path)  # Where links lead to.
    if not real.startswith(folder):
      outside = True
      continue
    try:
      status = os.stat(real)
    except OSError:
      continue
    if stat.S_ISREG(status.st_mode) and os.access(real, os.R_OK):
      return real, status
  if outside:
    raise api_parameters.Refusal(
      404, f"the file of {name} is not in the folder whose audio is served."
    )
  raise api_parameters.Refusal(
    404,
    f"the file of {name} is gone, or may not be read: bring it back, or embed "
    "the library again.",
  )


def _check_range(header: str, size: int) -> None:
  """Raises `Refusal` where a range is none, or not in the file."""
  found = _RANGE.fullmatch(header)
  begin, end = found.groups() if found else ("", "")
  good = bool(begin or end)
  if begin:
    good &= int(begin) < size and (not end or int(begin) <= int(end))
  elif end:
    good &= int(end) > 0 and size > 0
  if not good:
    raise api_parameters.Refusal(
      416,
      f"the range {file_names.shown(header[:60])!r} is not in the file, which "
      f"has {size} bytes: give one, such as bytes=0-999.",
      {"content-range": f"bytes */{size}"},
    )


def _media_type(path: str) -> str:
  """Returns the type of a file of sound; never one that a browser runs."""
  kind = mimetypes.guess_type(path)[0] or _UNKNOWN
  return kind if kind.startswith(("audio/", "video/")) else _UNKNOWN


def respond(
  library: Library, row: int, request: requests.Request
) -> responses.Response:
  """Returns the audio of a song, or the part of it that is asked for.

  Raises:
    Refusal: there is no such file, or no such range of it.
  """
  path, status = find(library, row)
  asked = request.headers.get("range")
  if asked is not None:
    _check_range(asked, status.st_size)
  return responses.FileResponse(
    path,
    media_type=_media_type(path),
    stat_result=status,
    headers={"cache-control": "private, no-cache"},
  )
