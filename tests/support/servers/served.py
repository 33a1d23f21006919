"""A small library that is served, asked without a network."""

from collections.abc import Iterator, Sequence
import contextlib
import pathlib
from typing import Any

from starlette import testclient

from pcl_jax.embedding.tables import song_table
from pcl_jax.server import application
from pcl_jax.server import endpoints
from pcl_jax.server import served_library
from tests.support.tiny import tiny_table

# Names that a page, an address, a header or a file of lines may stumble over.
ODD_NAMES = (
  "quotes \"and' <b onclick=alert(1)>&amp;.mp3",
  "emoji \U0001f3b5 e\u0301.mp3",
  "two\nlines\t.mp3",
  "caf\udce9 100% #?+.mp3",
)
URL = "http://127.0.0.1:8000"


def serve(
  path: pathlib.Path, audio: pathlib.Path | None = None
) -> served_library.ServedLibrary:
  """Serves a table."""
  return served_library.ServedLibrary(
    path,
    lambda: served_library.Library(song_table.read_table(path), audio=audio),
  )


@contextlib.contextmanager
def asked(
  served: served_library.ServedLibrary,
  more: Sequence[endpoints.Endpoint] = (),
  url: str = URL,
  **options: Any,
) -> Iterator[testclient.TestClient]:
  """Yields what asks the server; its failures are answers, not exceptions."""
  app = application.build(served, application.Options(**options), more)
  with testclient.TestClient(
    app, base_url=url, raise_server_exceptions=False, follow_redirects=False
  ) as client:
    yield client


def write(folder: pathlib.Path, songs: int = tiny_table.SONGS, **given: Any):
  """Writes a table of songs in a folder, with labels, and their files.

  Song i is of artist i % 4 (the last is not known), of the album i // 10, of
  genre i % 3 and 60 + i seconds long; its file holds i + 1 times its number.
  """
  music = folder / "music"
  music.mkdir(exist_ok=True)
  artists = ["Ann", "Bob <i>", "Cid & Dee", ""]
  facts = {
    "artists": [[artists[i % 4]] if i % 4 < 3 else [] for i in range(songs)],
    "album": [f"Album {i // 10}" for i in range(songs)],
    "album_id": [f"album {i // 10}" for i in range(songs)],
    "genres": [
      ["Rock", "Jazz", "<u>"][i % 3 : i % 3 + 1] for i in range(songs)
    ],
    "seconds": [60.0 + i for i in range(songs)],
    "name": [
      f"{artists[i % 4]} - Song {i}" if i % 4 < 3 else "" for i in range(songs)
    ],
  }
  names = ODD_NAMES[:songs]
  given = {"names": names, "facts": facts, "root": str(music)} | given
  table = tiny_table.write(folder / "music.parquet", songs=songs, **given)
  for i, one in enumerate(table.paths):
    pathlib.Path(one).write_bytes(bytes([i % 256]) * (i + 1))
  return table
