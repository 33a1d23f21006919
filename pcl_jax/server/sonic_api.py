"""Addresses that plugins of music servers ask for songs that sound alike.

They are those of AudioMuse-AI, as its plugin for Navidrome calls them.
"""

from collections.abc import Callable, Iterable
import math
import threading
import time
from typing import Any

import numpy as np

from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.embedding.lists import list_wishes
from pcl_jax.embedding.lists import song_lists
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_facts
from pcl_jax.server import api_parameters
from pcl_jax.server import endpoints
from pcl_jax.server import outside_ids
from pcl_jax.server import served_library

_MOST_SONGS, _MOST_STEPS = 1000, 200
_PER_ARTIST = 3  # Songs of one artist, where duplicates are eliminated.
_SHOWN_SONGS = 5  # Of an artist.
_ASKED_AGAIN_S = 60  # After a music server did not answer.
_UNKNOWN = "unknown"
_P = api_parameters.Parameter
_SERVER = _P("server", "has no effect")
_SIMILAR = (
  _P("item_id", "id of the song"),
  _P("title", "its title, in place of the id"),
  _P("artist", "its artist, with the title"),
  _P("n", "how many", int, 10, -(10**9), 10**9),
  _P("eliminate_duplicates", f"at most {_PER_ARTIST} songs of an artist", bool,
     False),
  _P("radius_similarity", "has no effect", bool, False),
  _P("mood_similarity", "has no effect", bool, False),
  _SERVER,
)  # fmt: skip
_ARTISTS = (
  _P("artist", "id or name of the artist"),
  _P("artist_id", "the same"),
  _P("n", "how many", int, 10, -(10**9), 10**9),
  _P("include_component_matches", "songs of both artists", bool, False),
  _SERVER,
)
_PATH = (
  _P("start_song_id", "id of the song that it begins with", required=True),
  _P("end_song_id", "id of the song that it ends with", required=True),
  _P("max_steps", "how many songs, with both ends", int, 25, -(10**9), 10**9),
  _SERVER,
)


class SonicApi:
  """Answers with ids of a music server."""

  def __init__(
    self,
    songs: Callable[[], Iterable[outside_ids.OutsideSong]] | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Takes what asks for the music server's songs; None: ids of the table."""
    self._songs, self._clock, self._asks_from = songs, clock, -math.inf
    self._mapped: outside_ids.Mapped | None = None
    self._mapping = threading.Lock()

  def endpoints(self) -> tuple[endpoints.Endpoint, ...]:
    """Returns the addresses."""
    given = (
      ("similar_tracks", "Songs that sound like one.", self._similar, _SIMILAR),
      ("similar_artists", "Artists like one.", self._artists, _ARTISTS),
      ("find_path", "A path between two songs.", self._path, _PATH),
    )
    return tuple(
      endpoints.Endpoint(
        f"/api/{name}", f"{text} As AudioMuse-AI has it.", answer, parameters,
        strict=False,
      )
      for name, text, answer, parameters in given
    )  # fmt: skip

  def mapped(self, library: served_library.Library) -> outside_ids.Mapped:
    """Returns the ids of a library, or those of the one before.

    They are asked for once for each library. Meanwhile, and for a while after
    the music server has not given them, answers are of the library before.

    Raises:
      Refusal: the music server does not give them, and there is none before.
    """
    known = self._mapped
    if known is not None and (
      known.library is library or self._clock() < self._asks_from
    ):
      return known
    if not self._mapping.acquire(blocking=known is None):
      return known
    try:
      if self._mapped is known:  # Else another thread was quicker.
        self._mapped = self._map(library)
    except api_parameters.Refusal as error:
      if known is None:
        raise
      self._asks_from = self._clock() + _ASKED_AGAIN_S
      console.warn(f"the ids and songs of before are given, since {error}")
    finally:
      self._mapping.release()
    return self._mapped

  def _map(self, library: served_library.Library) -> outside_ids.Mapped:
    if self._songs is None:
      return outside_ids.unmapped(library)
    try:
      found = outside_ids.map_songs(library, self._songs())
    except errors.InputError as error:
      raise api_parameters.Refusal(502, str(error)) from error
    console.say(found.said)
    return found

  def _track(self, mapped: outside_ids.Mapped, row: int) -> dict[str, Any]:
    """Returns a song as plugins read it."""
    library, song = mapped.library, mapped.song_of.get(row)
    facts = library.table.facts
    known = song if song and song.title else None
    artist = ", ".join(facts.artist_names(row))
    return {
      "item_id": song.id if song else library.ids[row],
      "title": known.title if known else library.title(row),
      "author": (known.artist if known else artist) or _UNKNOWN,
      "album": (known.album if known else facts.album(row)) or _UNKNOWN,
    }

  def _row(self, mapped: outside_ids.Mapped, name: str) -> int:
    row = mapped.row_of.get(name)
    if row is None:
      raise api_parameters.Refusal(
        404,
        f"no song of the table has the id {name!r}: embed the song, or start "
        "the server again where the music server's ids have changed.",
      )
    library = mapped.library
    if row in library.table.silent:
      raise api_parameters.Refusal(404, f"the song {name!r} is silent.")
    return row

  def _similar(self, library: served_library.Library, values) -> Any:
    mapped = self.mapped(library)
    library = mapped.library
    if values["item_id"]:
      row = self._row(mapped, values["item_id"])
    elif values["title"] and values["artist"]:
      row = library.sounding_row(f"{values['artist']} - {values['title']}")
    else:
      raise api_parameters.Refusal(
        400, "item_id is missing: give it, or title and artist."
      )
    limited = values["eliminate_duplicates"]
    limited &= library.table.facts.known("artists")
    wishes = list_wishes.Wishes(per_artist=_PER_ARTIST if limited else None)
    found = song_lists.similar(
      mapped.table,
      [library.query(row)],
      min(max(values["n"], 1), _MOST_SONGS),
      wishes=wishes,
    )
    pairs = zip(found.rows.tolist(), found.scores.tolist(), strict=True)
    return [
      {**self._track(mapped, one), "distance": round(1 - score, 6)}
      for one, score in pairs
    ]

  def _artist(self, mapped: outside_ids.Mapped, name: str) -> int:
    number = mapped.artist_of.get(name)
    if number is not None:
      return number
    facts = mapped.library.table.facts
    numbers = facts.numbers_of(song_facts.ARTIST, [name]).tolist()
    if not numbers:
      raise api_parameters.Refusal(
        404, f"no artist of the table has the id or the name {name!r}."
      )
    return numbers[0]

  def _artists(self, library: served_library.Library, values) -> Any:
    mapped = self.mapped(library)
    name = values["artist"] or values["artist_id"]
    if not name:
      raise api_parameters.Refusal(400, "artist is missing: give id or name.")
    number = self._artist(mapped, name)
    names, unit = mapped.library.artists
    hidden = np.array([number, *self._not_there(mapped)], np.int64)
    n = min(max(values["n"], 1), _MOST_SONGS)
    found = search.nearest_rows(unit, unit[number], n, hidden)
    answer = []
    for other, score in zip(
      found.rows.tolist(), found.scores.tolist(), strict=True
    ):
      one = {
        "artist": names[other],
        "artist_id": mapped.artist_id_of.get(other),
        "divergence": round(1 - score, 6),
      }
      if values["include_component_matches"]:
        songs = [self._songs_of(mapped, each) for each in (number, other)]
        one["component_matches"] = [
          {
            "artist1_representative_songs": songs[0],
            "artist2_representative_songs": songs[1],
          }
        ]
      answer.append(one)
    return answer

  def _not_there(self, mapped: outside_ids.Mapped) -> list[int]:
    """Returns the artists that the music server does not have."""
    if self._songs is None:
      return []
    count = len(mapped.library.artists[0])
    return [one for one in range(count) if one not in mapped.artist_id_of]

  def _songs_of(
    self, mapped: outside_ids.Mapped, artist: int
  ) -> list[dict[str, Any]]:
    """Returns the songs of an artist that are most like all of them."""
    library, lists = mapped.library, mapped.library.table.facts.artists
    rows = np.unique(lists.list_index()[lists.values == artist])
    rows = rows[~np.isin(rows, mapped.table.silent_rows)]
    unit = library.table.rows.unit
    scores = unit[rows] @ library.artists[1][artist]
    best = rows[search.best(scores, _SHOWN_SONGS)].tolist()
    tracks = [self._track(mapped, row) for row in best]
    return [
      {name: one[name] for name in ("item_id", "title")} for one in tracks
    ]

  def _path(self, library: served_library.Library, values) -> Any:
    mapped = self.mapped(library)
    library = mapped.library
    names = values["start_song_id"], values["end_song_id"]
    ends = [self._row(mapped, one) for one in names]
    sounding = len(library) - len(mapped.table.silent)
    k = min(max(values["max_steps"], 2), _MOST_STEPS, max(sounding, 2))
    found = song_lists.between(mapped.table, *ends, k)
    path = [self._track(mapped, row) for row in found.rows.tolist()]
    return {
      "path": path,
      "total_distance": round(float((1 - found.scores[1:]).sum()), 6),
    }
