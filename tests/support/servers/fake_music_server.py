"""A music server on the loopback that speaks what is needed of OpenSubsonic."""

from collections.abc import Iterator, Sequence
import contextlib
import hashlib
from http import server
import json
import threading
from typing import Any
from urllib import parse

USER, PASSWORD = "ann", "pass \u00e9 word"


class MusicServer:
  """What the server has, and what it was asked.

  Attributes:
    songs: as search3 gives them.
    asked: the parameters of each request.
    answer: in place of the right one, bytes of an answer.
    has_pages: whether it heeds songOffset.
    url: its address.
  """

  def __init__(self, songs: Sequence[dict[str, Any]]):
    """Takes the songs."""
    self.songs = list(songs)
    self.asked: list[dict[str, str]] = []
    self.answer: bytes | None = None
    self.has_pages = True
    self.url = ""

  def reply(self, path: str) -> bytes:
    """Returns the answer to a request."""
    parts = parse.urlsplit(path)
    given = dict(parse.parse_qsl(parts.query, keep_blank_values=True))
    self.asked.append(given)
    if self.answer is not None:
      return self.answer
    token = hashlib.md5((PASSWORD + given["s"]).encode()).hexdigest()
    if parts.path != "/rest/search3" or given["query"] != "":
      return self._wrapped(status="failed", error={"message": "what?"})
    if (given["u"], given["t"]) != (USER, token):
      error = {"code": 40, "message": "Wrong username or password"}
      return self._wrapped(status="failed", error=error)
    begin = int(given["songOffset"]) if self.has_pages else 0
    some = self.songs[begin : begin + int(given["songCount"])]
    return self._wrapped(status="ok", searchResult3={"song": some})

  @staticmethod
  def _wrapped(**content: Any) -> bytes:
    return json.dumps({"subsonic-response": content}).encode()


@contextlib.contextmanager
def listening(made: MusicServer) -> Iterator[MusicServer]:
  """Lets a music server listen, and then end."""

  class Handler(server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
      content = made.reply(self.path)
      self.send_response(200)
      self.send_header("content-length", str(len(content)))
      self.end_headers()
      self.wfile.write(content)

    def log_message(self, *_):
      pass

  with server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
    made.url = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    try:
      yield made
    finally:
      listener.shutdown()
      thread.join()
