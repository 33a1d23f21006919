"""Tests of pcl_jax.server.audio_queries."""

import asyncio
import threading

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding import song_queries
from pcl_jax.server import application
from tests.support.servers import served


class _Encoder(song_encoder.SongEncoder):
  """Gives the vector whose number a file holds."""

  def __init__(self, table):
    self._table = table

  def embed(self, path, **given):
    content = path.read_bytes()
    if content == b"noise":
      raise errors.InputError(f"{path} cannot be read: leave it out.")
    if content == b"silence" and given["refuse_silence"]:
      raise errors.InputError(f"{path} is silent: give another one.")
    return self._table.vectors[int(content)]


@pytest.fixture
def encoder(monkeypatch):
  """Lets an encoder be at hand; says how often it was loaded."""
  loads = []

  def load(table, workdir=None):
    loads.append(workdir)
    return _Encoder(table)

  monkeypatch.setattr(song_queries, "load_encoder", load)
  monkeypatch.setattr(song_queries.channel_mix, "of", lambda _: "mean")
  return loads


@pytest.fixture
def about(library, monkeypatch):
  """The table says how its songs were embedded."""
  more = {"feature": {}, "layer": "features", "batch_patches": 8}
  for name, value in more.items():
    monkeypatch.setitem(library.now().table.about, name, value)


def _send(client, content: bytes, query: str = "k=5"):
  return client.post(f"/api/similar?{query}", content=content)


def test_a_file_finds_what_its_vector_is_near(library, encoder, about):
  table = library.now().table
  with served.asked(library, workdir="runs/a") as client:
    for row in (7, 20):
      found = _send(client, str(row).encode()).json()["songs"]
      expected = table.nearest(table.vectors[row], 5)
      assert [one["id"] for one in found] == [
        table.ids[i] for i in expected.rows
      ]
      assert found[0]["id"] == f"{row}.mp3"
    both = _send(client, b"7", "k=5&like=20.mp3").json()["songs"]
    direction = np.stack([table.rows.unit[7], table.rows.unit[20]]).mean(axis=0)
    expected = table.nearest(direction, 5, without=20)
    assert [one["id"] for one in both] == [table.ids[i] for i in expected.rows]
  assert encoder == ["runs/a"]  # It is loaded once.


def test_a_file_that_cannot_be_read_is_refused(library, encoder, about):
  with served.asked(library) as client:
    answer = _send(client, b"noise")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the file that was sent cannot")
    assert _send(client, b"").status_code == 400


def test_a_silent_file_is_refused(library, encoder, about):
  with served.asked(library) as client:
    answer = _send(client, b"silence")
  assert answer.status_code == 400
  assert answer.json()["error"].startswith("the file that was sent is silent")


def test_a_file_is_bounded_and_read_no_further(library, encoder):
  sent = []

  def parts():
    for _ in range(100):
      sent.append(1)
      yield bytes(100_000)

  with served.asked(library, most_upload_mb=1) as client:
    answer = client.post("/api/similar", content=parts())
  assert answer.status_code == 413 and "1000000" in answer.json()["error"]
  assert not encoder


def test_a_file_that_says_it_is_too_large_is_not_read(library, encoder):
  with served.asked(library, most_upload_mb=1) as client:
    answer = _send(client, bytes(1_000_001))
  assert answer.status_code == 413 and not encoder


def test_who_goes_away_while_sending_is_no_failure_of_the_server(
  library, encoder, capsys
):
  app = application.build(library, application.Options())
  sent = []

  async def receive():
    return {"type": "http.disconnect"}

  async def send(message):
    sent.append(message)

  scope = {
    "type": "http",
    "method": "POST",
    "path": "/api/similar",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
  }
  asyncio.run(app(scope, receive, send))  # It raises nothing.
  assert sent[0]["status"] == 400


def test_without_the_encoder_files_are_refused_clearly(library):
  with served.asked(library, workdir="/no/such/run") as client:
    answer = _send(client, b"7")
  assert answer.status_code == 501
  assert "/no/such/run does not exist" in answer.json()["error"]


def test_another_encoder_is_no_encoder_of_the_table(library, monkeypatch):
  def load(table, workdir=None):
    raise errors.InputError("embeddings of two different encoders")

  monkeypatch.setattr(song_queries, "load_encoder", load)
  with served.asked(library) as client:
    answer = _send(client, b"7")
  assert answer.status_code == 501
  assert "two different encoders" in answer.json()["error"]


def test_one_file_at_a_time_is_embedded(library, monkeypatch, about):
  begun, free = threading.Event(), threading.Event()

  class Slow(_Encoder):
    def embed(self, path, **given):
      begun.set()
      free.wait()
      return super().embed(path)

  monkeypatch.setattr(song_queries, "load_encoder", lambda t, w=None: Slow(t))
  monkeypatch.setattr(song_queries.channel_mix, "of", lambda _: "mean")
  with served.asked(library) as client:
    answers = []
    first = threading.Thread(target=lambda: answers.append(_send(client, b"7")))
    first.start()
    assert begun.wait(60)
    busy = _send(client, b"7")
    free.set()
    first.join()
  assert busy.status_code == 503 and busy.headers["retry-after"] == "5"
  assert answers[0].status_code == 200
