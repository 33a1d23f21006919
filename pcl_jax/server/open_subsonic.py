"""Asks a music server for its songs, as OpenSubsonic has it."""

from collections.abc import Iterator
import hashlib
import http.client
import json
import secrets
from typing import Any
import urllib.error
import urllib.parse
import urllib.request

from pcl_jax.common import errors
from pcl_jax.server import outside_ids

_SCHEMES = ("http", "https")
_VERSION, _CLIENT = "1.16.1", "pcl_jax"
_PAGE = 500  # Songs that are asked for at once.
_MOST_PAGES = 20_000
_MOST_BYTES = 32 << 20  # Of an answer.
_TIMEOUT_S = 30
# What is no answer, or breaks off.
_BROKEN = (
  OSError,
  http.client.HTTPException,
  ValueError,
  KeyError,
  TypeError,
  AttributeError,
)


def _is_address(text: str) -> bool:
  try:
    parts = urllib.parse.urlsplit(text)
    return bool(parts.scheme in _SCHEMES and parts.hostname and parts.port != 0)
  except ValueError:  # Of the port, or of brackets.
    return False


class MusicServer:
  """A music server, and who asks it."""

  def __init__(self, address: str, user: str, password: str):
    """Takes its address, as in http://localhost:4533, and an account.

    Raises:
      InputError: the address is none, or there is no account.
    """
    if not _is_address(address):
      raise errors.InputError(
        f"--music_server={address} is no address: give one such as "
        "http://localhost:4533."
      )
    if not user or not password:
      raise errors.InputError(
        "the music server asks for a name and a password: give --music_user "
        "and the environment variable PCL_JAX_MUSIC_PASSWORD."
      )
    self.address = address.rstrip("/")
    self._user, self._password = user, password

  def _failed(self, reason: object) -> errors.InputError:
    return errors.InputError(
      f"the music server {self.address} gives no songs ({reason}): check "
      "--music_server, --music_user and PCL_JAX_MUSIC_PASSWORD."
    )

  def _ask(self, method: str, **given: Any) -> dict[str, Any]:
    """Returns the answer of a method; the password itself is not sent."""
    salt = secrets.token_hex(8)
    token = hashlib.md5(
      (self._password + salt).encode(), usedforsecurity=False
    ).hexdigest()
    account = {"u": self._user, "t": token, "s": salt}
    form = {"v": _VERSION, "c": _CLIENT, "f": "json"}
    query = urllib.parse.urlencode(account | form | given)
    url = f"{self.address}/rest/{method}?{query}"
    try:
      with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        content = json.loads(answer.read(_MOST_BYTES))
      found = content["subsonic-response"]
      if found.get("status") != "ok":
        raise self._failed(found.get("error", {}).get("message", "no reason"))
    except _BROKEN as error:
      if isinstance(error, errors.InputError):
        raise
      reason = getattr(error, "reason", None) or type(error).__name__
      raise self._failed(reason) from error
    return found

  def _pages(self) -> Iterator[list[dict[str, Any]]]:
    for page in range(_MOST_PAGES):
      found = self._ask(
        "search3",
        query="",
        artistCount=0,
        albumCount=0,
        songCount=_PAGE,
        songOffset=page * _PAGE,
      )
      songs = (found.get("searchResult3") or {}).get("song") or []
      yield [one for one in songs if isinstance(one, dict)]
      if len(songs) < _PAGE:
        return

  def songs(self) -> list[outside_ids.OutsideSong]:
    """Returns all songs.

    Raises:
      InputError: the server cannot be asked, or has none.
    """
    found: dict[str, outside_ids.OutsideSong] = {}
    for page in self._pages():
      before = len(found)
      for song in filter(None, map(outside_ids.of_record, page)):
        found.setdefault(song.id, song)
      if len(found) == before:  # A server that has no pages repeats itself.
        break
    if not found:
      raise self._failed("it has none, or none for this account")
    return list(found.values())
