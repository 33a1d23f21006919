"""Tests of pcl_jax.server.open_subsonic."""

import socket
import threading

import pytest

from pcl_jax.common import errors
from pcl_jax.server import open_subsonic
from tests.support.servers import fake_music_server

USER, PASSWORD = fake_music_server.USER, fake_music_server.PASSWORD


@pytest.fixture
def music_server():
  """A music server of 1,200 songs."""
  songs = [
    {
      "id": f"s{i}",
      "title": f"Song {i}",
      "artist": "Ann",
      "artistId": "a1",
      "album": "X",
      "path": f"Ann/X/{i}.mp3",
      "duration": 60 + i,
    }
    for i in range(1200)
  ]
  with fake_music_server.listening(fake_music_server.MusicServer(songs)) as one:
    yield one


def _songs(address: str, user: str = USER, password: str = PASSWORD):
  return open_subsonic.MusicServer(address, user, password).songs()


def test_all_songs_come_page_by_page_without_the_password(music_server):
  found = _songs(music_server.url + "/")
  assert [one.id for one in found] == [f"s{i}" for i in range(1200)]
  assert found[7].artist_ids == (("Ann", "a1"),)
  assert found[7].seconds == 67 and found[7].path == "Ann/X/7.mp3"
  offsets = [one["songOffset"] for one in music_server.asked]
  assert offsets == ["0", "500", "1000"]
  assert PASSWORD not in str(music_server.asked)
  assert len({one["s"] for one in music_server.asked}) == 3  # New salts.


def test_a_server_that_has_no_pages_is_not_asked_for_ever(music_server):
  music_server.has_pages = False
  assert len(_songs(music_server.url)) == 500


@pytest.mark.parametrize(
  "answer",
  [
    b"<html>",
    b"[]",
    b"{}",
    b'{"subsonic-response": null}',
    b'{"subsonic-response": {"status": "ok"}}',
    b'{"subsonic-response": {"status": "ok", "searchResult3": {"song": [3]}}}',
    b'{"subsonic-response": {"status": "failed"}}',
  ],
)
def test_an_answer_that_is_none_is_refused(music_server, answer):
  music_server.answer = answer
  with pytest.raises(errors.InputError, match="gives no songs"):
    _songs(music_server.url)


@pytest.mark.parametrize(
  "content",
  [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    b"",
  ],
)
def test_what_does_not_speak_http_to_the_end_is_refused(content):
  with socket.create_server(("127.0.0.1", 0)) as listener:

    def answer():
      connection, _ = listener.accept()
      with connection:
        connection.recv(65536)
        connection.sendall(content)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
      with pytest.raises(errors.InputError, match="gives no songs"):
        _songs(f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
      thread.join()


def test_a_wrong_password_is_said_and_not_shown(music_server):
  with pytest.raises(errors.InputError, match="Wrong username") as caught:
    _songs(music_server.url, password="not this one")
  assert "not this one" not in str(caught.value)


def test_a_server_that_is_not_there_is_said(music_server):
  with pytest.raises(errors.InputError, match="gives no songs"):
    _songs("http://127.0.0.1:9")
  for address in (
    "file:///etc/passwd",
    "localhost:4533",
    "http://",
    "http://[",
    "http://localhost:45a3",
    "http://localhost:99999",
    "",
  ):
    with pytest.raises(errors.InputError, match="is no address"):
      _songs(address)
  with pytest.raises(errors.InputError, match="PCL_JAX_MUSIC_PASSWORD"):
    _songs(music_server.url, password="")
