"""The server: its addresses, and answers in json where something is wrong."""

from collections.abc import Callable, Collection, Sequence
import dataclasses
import json
from typing import Any

from starlette import applications
from starlette import concurrency
from starlette import exceptions
from starlette import middleware
from starlette import requests
from starlette import responses
from starlette import routing

from pcl_jax.common import errors
from pcl_jax.server import access_rules
from pcl_jax.server import api_description
from pcl_jax.server import api_parameters
from pcl_jax.server import audio_files
from pcl_jax.server import audio_queries
from pcl_jax.server import endpoints
from pcl_jax.server import served_library
from pcl_jax.server import song_api
from pcl_jax.server import web_pages

MOST_QUERY_CHARS = 50_000  # Of a query string.


@dataclasses.dataclass(frozen=True)
class Options:
  """How a library is served.

  Attributes:
    token: what every request has to give; empty for none.
    hosts: names, besides those of this machine, that the server answers to.
    workdir: where the encoder is for files that are sent; None for where the
      table says.
    most_upload_mb: megabytes of such a file.
  """

  token: str = ""
  hosts: Collection[str] = ()
  workdir: str | None = None
  most_upload_mb: int = 50


def _json(value: Any, status: int = 200, headers: Any = None):
  # Escapes what is not ASCII: a name may have what UTF-8 has no code for.
  content = json.dumps(value, allow_nan=False, separators=(",", ":"))
  return responses.Response(
    content, status, headers, media_type="application/json"
  )


def _failed(request: requests.Request, error: Exception) -> responses.Response:
  """Answers with what is wrong, for people."""
  del request
  if isinstance(error, api_parameters.Refusal):
    return _json({"error": str(error)}, error.status, error.headers)
  if isinstance(error, errors.InputError):
    return _json({"error": str(error)}, 400)
  if isinstance(error, exceptions.HTTPException):
    return _json({"error": error.detail}, error.status_code, error.headers)
  return _json({"error": "the server failed, and its log says why."}, 500)


async def _body(request: requests.Request, endpoint: endpoints.Endpoint) -> Any:
  """Reads a body, no more of it than may be."""
  too_large = api_parameters.Refusal(
    413, f"the body is larger than {endpoint.most_bytes} bytes."
  )
  said = request.headers.get("content-length", "")
  if said.isdecimal() and int(said[:20]) > endpoint.most_bytes:
    raise too_large
  parts, size = [], 0
  try:
    async for part in request.stream():
      size += len(part)
      if size > endpoint.most_bytes:
        raise too_large
      parts.append(part)
  except requests.ClientDisconnect as error:
    raise api_parameters.Refusal(400, "the body ends too early.") from error
  content = b"".join(parts)
  if endpoint.body != "application/json":
    return content
  try:
    return json.loads(content)
  except (ValueError, RecursionError) as error:
    raise api_parameters.Refusal(400, "the body is not json.") from error


def _read(
  request: requests.Request, endpoint: endpoints.Endpoint
) -> endpoints.Values:
  if len(request.url.query) > MOST_QUERY_CHARS:
    raise api_parameters.Refusal(
      414, f"the query has more than {MOST_QUERY_CHARS} characters."
    )
  given = request.query_params
  return api_parameters.read(endpoint.parameters, given, strict=endpoint.strict)


def _handler(
  endpoint: endpoints.Endpoint, served: served_library.ServedLibrary
) -> Callable:
  async def handle(request: requests.Request) -> responses.Response:
    values = _read(request, endpoint)
    given = [await _body(request, endpoint)] if endpoint.body else []

    def answer() -> responses.Response:
      library = served.now()
      found = endpoint.answer(library, values, *given)
      if isinstance(found, responses.Response):
        return found
      return _json(found)

    return await concurrency.run_in_threadpool(answer)

  return handle


def _audio_handler(served: served_library.ServedLibrary) -> Callable:
  async def handle(request: requests.Request) -> responses.Response:
    values = api_parameters.read(audio_files.PARAMETERS, request.query_params)

    def answer() -> responses.Response:
      library = served.now()
      row = library.row(values["id"])
      return audio_files.respond(library, row, request)

    return await concurrency.run_in_threadpool(answer)

  return handle


def _status_handler(served: served_library.ServedLibrary) -> Callable:
  def handle(request: requests.Request) -> responses.Response:
    del request
    songs = len(served.now())
    return _json({"status": "ok", "songs": songs, "said": served.said})

  return handle


def build(
  served: served_library.ServedLibrary,
  options: Options,
  more: Sequence[endpoints.Endpoint] = (),
) -> applications.Starlette:
  """Returns the server as an ASGI application.

  Args:
    served: the library.
    options: how it is served.
    more: addresses besides those of the songs.
  """
  queries = audio_queries.AudioQueries(options.workdir)
  upload = endpoints.Endpoint(
    "/api/similar",
    "Songs that sound like an audio file, which is the body.",
    queries.similar,
    song_api.SIMILAR,
    method="POST",
    body="application/octet-stream",
    most_bytes=options.most_upload_mb * 10**6,
  )
  every = [*song_api.ENDPOINTS, upload, *more]
  routes = [
    routing.Route(one.path, _handler(one, served), methods=[one.method])
    for one in every
  ]
  described = api_description.described(every)
  routes += [
    routing.Route("/api/audio", _audio_handler(served)),
    routing.Route("/api/health", _status_handler(served)),
    routing.Route("/api/openapi.json", lambda _: _json(described)),
    *web_pages.routes(),
  ]
  kinds = (errors.InputError, exceptions.HTTPException, Exception)
  return applications.Starlette(
    routes=routes,
    exception_handlers=dict.fromkeys(kinds, _failed),
    middleware=[
      middleware.Middleware(
        access_rules.AccessRules, token=options.token, hosts=options.hosts
      )
    ],
  )
