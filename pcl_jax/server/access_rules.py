"""Who may ask the server for what: hosts, origins and the token.

A page of another site that the owner's browser shows is kept away in two ways.
Requests that change or cost something are taken from the server's own pages
only (Origin). And the server answers to names of this machine only (Host), so
that no other name that leads here makes a foreign page one of its own; where
there is a token, which such a page does not have, any name will do.
"""

from collections.abc import Collection
import hmac
import ipaddress
import urllib.parse

from starlette import datastructures
from starlette import requests
from starlette import responses
from starlette import types

from pcl_jax.common import errors

COOKIE = "pcl_jax_token"
_SAFE = ("GET", "HEAD", "OPTIONS")
_LOCAL = "localhost"
# Nothing on a page comes from elsewhere, or runs that is not the server's.
_HEADERS = {
  "Content-Security-Policy": (
    "default-src 'self'; img-src 'self' data:; style-src 'self' "
    "'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action "
    "'self'"
  ),
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
}


def is_local(host: str) -> bool:
  """Tells whether a name or an address is of this machine alone."""
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host.lower().rstrip(".") == _LOCAL


def check(host: str, token: str) -> None:
  """Raises InputError where others could ask without a token."""
  if not token and not is_local(host):
    raise errors.InputError(
      f"--host={host} serves your music to other machines, and there is no "
      "token: give one by --token or the environment variable PCL_JAX_TOKEN, "
      "or leave out --host."
    )
  if token and (
    len(token) < 8 or not token.isascii() or not token.isprintable()
  ):
    raise errors.InputError(
      "the token has to have 8 printable ASCII characters or more: give "
      "another one, such as what `openssl rand -hex 16` prints."
    )


def _refused(status: int, message: str) -> responses.Response:
  return responses.JSONResponse({"error": message}, status)


def _host_of(address: str) -> str:
  """Returns the name of HOST:PORT; empty if it is none."""
  try:
    return urllib.parse.urlsplit(f"//{address}").hostname or ""
  except ValueError:
    return ""


def _is_of(origin: str, host: str) -> bool:
  """Tells whether an origin is of HOST:PORT; one that is none is not."""
  try:
    return urllib.parse.urlsplit(origin).netloc == host
  except ValueError:
    return False


class AccessRules:
  """Lets through what may be asked for; an ASGI application around another."""

  def __init__(
    self,
    app: types.ASGIApp,
    *,
    token: str = "",
    hosts: Collection[str] = (),
  ):
    """Takes the application, the token, and names besides those of here."""
    self._app = app
    self._token = token
    self._hosts = {one.lower() for one in hosts}

  async def __call__(
    self, scope: types.Scope, receive: types.Receive, send: types.Send
  ) -> None:
    """Answers a request, or has it answered."""
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return

    async def send_with_headers(message: types.Message) -> None:
      if message["type"] == "http.response.start":
        headers = datastructures.MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
          headers.setdefault(name, value)
      await send(message)

    request = requests.Request(scope)
    answer = self._refusal(request) or self._signed_in(request)
    await (answer or self._app)(scope, receive, send_with_headers)

  def _refusal(self, request: requests.Request) -> responses.Response | None:
    """Returns why a request is refused; None if it is not."""
    host = request.headers.get("host", "")
    name = _host_of(host)
    if not self._token and not is_local(name) and name not in self._hosts:
      return _refused(
        403,
        "the server does not answer to this name: ask for 127.0.0.1 or "
        "localhost, or start it with --allow_host=NAME.",
      )
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    foreign = origin is not None and not _is_of(origin, host)
    foreign |= site not in ("same-origin", "none")
    if foreign and request.method not in _SAFE:
      return _refused(403, "pages of other sites may not ask for this.")
    return None

  def _is(self, given: str) -> bool:
    return hmac.compare_digest(given.encode(), self._token.encode())

  def _signed_in(self, request: requests.Request) -> responses.Response | None:
    """Returns what to answer where the token is missing or just given."""
    if not self._token:
      return None
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and self._is(given.strip()):
      return None
    if self._is(request.cookies.get(COOKIE, "")):
      return None
    if request.method == "GET" and self._is(
      request.query_params.get("token", "")
    ):  # The browser keeps it from now on, and the address does not show it.
      url = request.url.remove_query_params("token")
      rest = f"{url.path}?{url.query}" if url.query else url.path
      answer = responses.RedirectResponse(f"/{rest.lstrip('/')}", 303)
      answer.set_cookie(
        COOKIE, self._token, httponly=True, samesite="strict", path="/"
      )
      return answer
    answer = _refused(
      401,
      "this needs the server's token: give it as `Authorization: Bearer "
      "TOKEN`, or open the page once with ?token=TOKEN.",
    )
    answer.headers["www-authenticate"] = "Bearer"
    return answer
