"""Listens for requests until the process is asked to end."""

import contextlib
import socket
import sys

from starlette import applications
import uvicorn

from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.server import served_library

# How long a thread may keep the interpreter. The one that reads and writes the
# requests needs it often, and may wait this long each time: with Python's 5 ms,
# answers took several times as long where many were asked for.
_SWITCH_S = 0.0005


def _bound(host: str, port: int) -> socket.socket:
  """Returns a socket that listens; a port of 0 is a free one."""
  family = socket.AF_INET6 if ":" in host else socket.AF_INET
  found = socket.socket(family, socket.SOCK_STREAM)
  found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    found.bind((host, port))
    found.listen(1024)  # From now on requests wait, and are not refused.
  except OSError as error:
    found.close()
    raise errors.InputError(
      f"--host={host} --port={port} cannot be listened on "
      f"({error.strerror or error}): give another port, such as "
      f"--port={port + 1}, or an address of this machine."
    ) from error
  return found


def run(
  app: applications.Starlette,
  host: str,
  port: int,
  served: served_library.ServedLibrary,
) -> None:
  """Serves until SIGINT or SIGTERM, which let requests finish.

  Raises:
    InputError: the address cannot be listened on.
  """
  bound = _bound(host, port)
  config = uvicorn.Config(
    app,
    access_log=False,  # It would hold tokens and names of songs.
    log_level="warning",
    server_header=False,
    timeout_graceful_shutdown=5,
  )
  name = f"[{host}]" if ":" in host else host
  sys.setswitchinterval(_SWITCH_S)
  console.say(
    f"{len(served.now())} songs are served at "
    f"http://{name}:{bound.getsockname()[1]}/ (Ctrl-C ends)"
  )
  # It passes a signal on once it has ended.
  with contextlib.suppress(KeyboardInterrupt):
    uvicorn.Server(config).run(sockets=[bound])
