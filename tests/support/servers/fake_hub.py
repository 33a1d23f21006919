"""A model hub on the loopback, with one repository, whose files are a folder's.

It answers what huggingface_hub asks when it downloads a repository.
"""

from collections.abc import Iterator
import contextlib
import hashlib
import http.server
import json
import pathlib
import threading

NAME = "user/name"
COMMIT = "0123456789" * 4


def _handler(folder: pathlib.Path) -> type[http.server.BaseHTTPRequestHandler]:
  files = {path.name: path.read_bytes() for path in folder.iterdir()}
  listed = [
    {
      "type": "file",
      "path": name,
      "size": len(content),
      "oid": hashlib.sha1(content).hexdigest(),
    }
    for name, content in files.items()
  ]
  about = {
    "id": NAME,
    "sha": COMMIT,
    "siblings": [{"rfilename": name} for name in files],
  }
  texts = {
    f"/api/models/{NAME}": about,
    f"/api/models/{NAME}/revision/main": about,
    f"/api/models/{NAME}/tree/{COMMIT}": listed,
  }

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      path = self.path.partition("?")[0]
      content, status = b"", 404
      folder, _, name = path.rpartition("/")
      if path in texts:
        content, status = json.dumps(texts[path]).encode(), 200
      elif folder == f"/{NAME}/resolve/{COMMIT}" and name in files:
        content, status = files[name], 200
      self.send_response(status)
      self.send_header("Content-Length", str(len(content)))
      self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
      self.send_header("X-Repo-Commit", COMMIT)
      if status == 404:
        self.send_header("X-Error-Code", "RepoNotFound")
      self.end_headers()
      if self.command == "GET":
        self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
      pass

  return Handler


@contextlib.contextmanager
def serve(folder: pathlib.Path) -> Iterator[str]:
  """Serves the files of a folder as user/name; yields the hub's address."""
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(folder))
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  try:
    yield f"http://127.0.0.1:{server.server_address[1]}"
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
