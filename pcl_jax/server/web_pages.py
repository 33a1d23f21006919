"""The pages of the server and what they load, all of it from here."""

import functools
import hashlib
import pathlib

from starlette import requests
from starlette import responses
from starlette import routing

from pcl_jax.pages import page_files

_FOLDER = pathlib.Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# Of the report page, whose map and looks the pages share.
_SHARED = {"base.css": "report.css", page_files.SONG_MAP: page_files.SONG_MAP}
_VEGA = "vega.js"


def _own(name: str) -> str:
  return (_FOLDER / name).read_text("utf-8")


def _vega() -> str:
  """Returns the library that draws the map, in a scope of its own."""
  import vl_convert

  return f"(() => {{\n{vl_convert.javascript_bundle()}\n}})();\n"


@functools.cache
def _content(name: str) -> tuple[bytes, str]:
  """Returns a file, and a digest of it."""
  if name in _SHARED:
    text = page_files.text_of(_SHARED[name])
  else:
    text = _vega() if name == _VEGA else _own(name)
  content = text.encode()
  return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _route(path: str, name: str) -> routing.Route:
  def respond(request: requests.Request) -> responses.Response:
    content, digest = _content(name)
    headers = {"etag": digest, "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == digest:
      return responses.Response(status_code=304, headers=headers)
    kind = _TYPES[pathlib.PurePath(name).suffix]
    return responses.Response(content, headers=headers, media_type=kind)

  return routing.Route(path, respond)


def routes() -> list[routing.Route]:
  """Returns the addresses of the pages and of what they load."""
  own = [one.name for one in _FOLDER.iterdir() if one.suffix in (".css", ".js")]
  names = [*own, *_SHARED, _VEGA]
  return [
    _route("/", "index.html"),
    _route("/api/docs", "docs.html"),
    *(_route(f"/static/{name}", name) for name in sorted(names)),
  ]
