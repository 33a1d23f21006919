"""Songs, neighbours, paths, playlists and the map, as addresses."""

from typing import Any

from jaxtyping import Int
import numpy as np
from starlette import responses

from pcl_jax.common import errors
from pcl_jax.embedding import song_queries
from pcl_jax.embedding.lists import list_files
from pcl_jax.embedding.lists import list_wishes
from pcl_jax.embedding.lists import song_lists
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_facts
from pcl_jax.pages import chart_specs
from pcl_jax.server import api_parameters
from pcl_jax.server import audio_files
from pcl_jax.server import endpoints
from pcl_jax.server.endpoints import Library
from pcl_jax.server.endpoints import Values

MOST_SONGS = 1000  # Of an answer.
MAP_BY = ("genre", "artist", "folder")  # What colours the map.
_TYPES = {
  "m3u8": "application/vnd.apple.mpegurl",
  "csv": "text/csv",
  "json": "application/json",
  "xspf": "application/xspf+xml",
}
_P = api_parameters.Parameter
_K = _P("k", "how many songs", int, 10, 1, MOST_SONGS)
_SONG = "a song: its id, the end of its path, or its name"
_FORMAT = _P(
  "format",
  "a file in place of the answer: m3u8, csv or xspf; json is the answer",
  default="json",
  choices=("json", "m3u8", "csv", "xspf"),
)
_PATHS = _P(
  "paths",
  "paths in such a file; relative ones begin in the folder of the audio",
  default="absolute",
  choices=("absolute", "relative"),
)
_WHICH = (
  _P(
    "exclude_same",
    "leaves out songs of the same artist, album or artist,album",
    choices=("artist", "album", "artist,album", "album,artist"),
  ),
  _P("not_in", "songs that are left out", many=True),
  _P("folder", "songs of this folder only"),
  _P("genre", "songs of this genre only"),
)
_SHAPE = (
  *_WHICH,
  _P("per_artist", "at most so many songs of one artist", int, None, 1, 1000),
  _P("min_score", "the least score", float, None, -1, 1),
  _P("max_minutes", "how long they last together", float, None, 0, 1e6),
  _P("diversity", "from 0, the best, to 1, as different as can be", float, 0.0,
     0, 1),
  _P("order", "puts them in an order of small steps", bool, False),
  _P("blend", "share of the playlists' vectors in the score", float, None, 0,
     1),
)  # fmt: skip
LIKE = _P("like", f"{_SONG}; several are taken together", many=True)
SIMILAR = (
  LIKE,
  _P("unlike", "songs that they are to differ from", many=True),
  _K,
  *_SHAPE,
  _FORMAT,
  _PATHS,
)


def _rows(library: Library, names: list[str]) -> list[int]:
  return [library.row(one) for one in names]


def _sounding_rows(library: Library, names: list[str]) -> list[int]:
  return [library.sounding_row(one) for one in names]


def wishes_of(library: Library, values: Values) -> list_wishes.Wishes:
  """Returns what a list is to be like."""
  same = values["exclude_same"]
  return list_wishes.Wishes(
    exclude_same=tuple(same.split(",")) if same else (),
    excluded=tuple(_rows(library, values["not_in"])),
    folder=values["folder"] or "",
    genre=values["genre"] or "",
    min_score=values.get("min_score"),
    per_artist=values.get("per_artist"),
    max_minutes=values.get("max_minutes"),
    diversity=values.get("diversity", 0.0),
    order=values.get("order", False),
  )


def answered(
  library: Library, found: search.Found, values: Values, **about: Any
) -> Any:
  """Returns songs as plain values, or as the file that is asked for."""
  if values["format"] == "json":
    return {**about, "songs": library.songs(found)}
  return playlist_file(library, found, values["format"], values["paths"])


def playlist_file(
  library: Library, found: search.Found, kind: str, paths: str
) -> responses.Response:
  """Returns a file of songs.

  Args:
    library: the library.
    found: the songs.
    kind: which kind of file.
    paths: `absolute`, or `relative` to the folder of the audio.

  Raises:
    InputError: relative paths are asked for, and there is no such folder.
  """
  name = "m3u" if kind == "m3u8" else kind
  folder = ""
  if paths == "relative":
    if library.audio is None:
      raise errors.InputError(
        "relative paths are those within the folder of the audio, and the "
        "server has none: start it with --audio=FOLDER."
      )
    folder = str(library.audio)
  rows = [
    one | {"path": audio_files.place(library, row)}
    for row, one in zip(
      found.rows.tolist(),
      list_files.rows_of(library.table, found),
      strict=True,
    )
  ]
  text = list_files.text_of(name, rows, folder=folder, title="pcl_jax")
  return responses.Response(
    text.encode("utf-8", "backslashreplace"),
    media_type=_TYPES[kind],
    headers={"content-disposition": f'attachment; filename="pcl_jax.{kind}"'},
  )


def alike(
  library: Library, values: Values, wanted: list[song_queries.Query]
) -> Any:
  """Answers with songs that are like some, and unlike others."""
  wishes, second = wishes_of(library, values), None
  if values["blend"] is not None:
    if library.second is None:
      raise errors.InputError(
        "blend needs the playlists' vectors of a data set: start the server "
        "with --data=FOLDER."
      )
    second = library.second._replace(share=values["blend"])
  rows = _sounding_rows(library, values["unlike"])
  unwanted = [library.query(row) for row in rows]
  found = song_lists.similar(
    library.table,
    wanted,
    values["k"],
    unwanted=unwanted,
    wishes=wishes,
    second=second,
  )
  said = song_lists.remarks(library.table, found, values["k"], wishes)
  queries = [library.song(one.row) for one in wanted if one.row >= 0]
  return answered(library, found, values, queries=queries, said=said)


def _similar(library: Library, values: Values) -> Any:
  rows = _sounding_rows(library, values["like"])
  if not rows:
    raise api_parameters.Refusal(400, f"like is missing: {_SONG}.")
  return alike(library, values, [library.query(row) for row in rows])


def _path(library: Library, values: Values) -> Any:
  ends = _sounding_rows(library, [values["from"], values["to"]])
  wishes = wishes_of(library, values)
  found = song_lists.between(library.table, *ends, values["k"], wishes)
  return answered(library, found, values)


def _search(library: Library, values: Values) -> Any:
  rows = library.with_words(values["q"] or "", values["k"])
  return {"songs": [library.song(row) for row in rows.tolist()]}


def _song(library: Library, values: Values) -> Any:
  return library.song(library.row(values["id"]))


def _library(library: Library, values: Values) -> Any:
  del values
  about = library.table.about
  groups = [one for one in song_facts.GROUPS if _knows(library, one)]
  return {
    "songs": len(library),
    "silent": len(library.table.silent),
    "genres": library.genres[:200],
    "exclude_same": groups,
    "audio": library.audio is not None,
    "blend": library.second is not None,
    "weights_sha256": about["weights_sha256"],
  }


def _knows(library: Library, group: str) -> bool:
  column = {song_facts.ARTIST: "artists"}.get(group, group)
  return library.table.facts.known(column)


def _map(library: Library, values: Values) -> Any:
  del values
  made = dict(library.map())
  count = len(made["songs"]["id"])
  made["spec"] = chart_specs.song_map(count, made["method"], MAP_BY)
  return made


def _found(rows: Int[np.ndarray, " rows"]) -> search.Found:
  return search.Found(rows, np.zeros(len(rows), np.float32))


def _playlist(library: Library, values: Values, body: Any) -> Any:
  """Makes a file of songs in the order in which they are given."""
  names = body.get("songs") if isinstance(body, dict) else None
  if not isinstance(names, list) or not all(isinstance(s, str) for s in names):
    raise api_parameters.Refusal(
      400, 'the body has no list of songs: give {"songs": ["id", ...]}.'
    )
  if not 1 <= len(names) <= MOST_SONGS:
    raise api_parameters.Refusal(
      400, f"{len(names)} songs are given: give 1 to {MOST_SONGS}."
    )
  if any(len(one) > api_parameters.MOST_CHARS for one in names):
    raise api_parameters.Refusal(
      400, f"an id is longer than {api_parameters.MOST_CHARS} characters."
    )
  if values["order"]:
    rows = np.unique(_sounding_rows(library, names))
    found = song_lists.reordered(library.table, rows)
  else:
    found = _found(np.array(_rows(library, names), np.int64))
  if values["format"] == "json":
    return {"songs": library.songs(found)}
  return playlist_file(library, found, values["format"], values["paths"])


ENDPOINTS = (
  endpoints.Endpoint(
    "/api/library", "What is served: songs, genres, what is known.", _library
  ),
  endpoints.Endpoint(
    "/api/songs",
    "Songs whose name, path or album has all words of q.",
    _search,
    (_P("q", "words"), _P("k", "how many", int, 20, 1, MOST_SONGS)),
  ),
  endpoints.Endpoint(
    "/api/song", "One song.", _song, (_P("id", _SONG, required=True),)
  ),
  endpoints.Endpoint(
    "/api/similar", "Songs that sound like some and unlike others.", _similar,
    SIMILAR,
  ),
  endpoints.Endpoint(
    "/api/path", "A path of k songs from one song to another.", _path,
    (
      _P("from", f"where it begins, {_SONG}", required=True),
      _P("to", f"where it ends, {_SONG}", required=True),
      _P("k", "how many songs, with both ends", int, 12, 2, 200),
      *_WHICH,
      _FORMAT,
      _PATHS,
    ),
  ),
  endpoints.Endpoint(
    "/api/playlist", "A file of songs, in their order or in small steps.",
    _playlist,
    (
      _FORMAT,
      _PATHS,
      _P("order", "puts them in an order of small steps", bool, False),
    ),
    method="POST",
    body="application/json",
  ),
  endpoints.Endpoint("/api/map", "Places of the songs on a plane.", _map),
)  # fmt: skip
