"""Tests of python -m pcl_jax.serve."""

import builtins
import os
import socket
import subprocess
import sys

import pytest

from pcl_jax import serve
from pcl_jax.common import errors
from pcl_jax.server import listening


@pytest.fixture
def table(folder) -> str:
  """What names the table on a command line."""
  return f"--embeddings={folder / 'music.parquet'}"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
  """What the command sets is gone after a test."""
  for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    monkeypatch.setenv(name, "1")


@pytest.fixture
def heard(monkeypatch):
  """Keeps what would be listened to, and does not listen."""
  found = []
  monkeypatch.setattr(listening, "run", lambda *given: found.append(given))
  return found


def test_a_library_is_served_to_this_machine(table, folder, heard):
  serve.main([table, f"--audio={folder / 'music'}", "--port=0"])
  ((_, host, port, served),) = heard
  assert (host, port) == ("127.0.0.1", 0)
  assert served.now().audio == folder / "music"


def test_the_token_comes_from_the_environment(table, heard, monkeypatch):
  with pytest.raises(errors.InputError, match="PCL_JAX_TOKEN"):
    serve.main([table, "--host=0.0.0.0"])
  monkeypatch.setenv("PCL_JAX_TOKEN", "0123456789")
  serve.main([table, "--host=0.0.0.0"])
  assert len(heard) == 1


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--audio=/no/such/folder"], "is not a folder"),
    (["--port=70000"], "0 to 65535"),
    (["--embeddings=/no/such/table"], "is not a file"),
    (["--data=/no/such/data"], "/no/such/data"),
  ],
)
def test_wrong_flags_are_refused(table, heard, flags, words):
  with pytest.raises(errors.InputError, match=words):
    serve.main([table, *flags])
  assert not heard


def test_a_port_that_is_taken_is_refused(table):
  with socket.socket() as other:
    other.bind(("127.0.0.1", 0))
    other.listen()
    port = other.getsockname()[1]
    with pytest.raises(errors.InputError, match=f"{port} cannot be listened"):
      serve.main([table, f"--port={port}"])


def test_matrix_products_take_one_thread():
  # numpy reads the variable when it is loaded: nothing before may load it.
  code = (
    "import sys; from pcl_jax import serve; assert 'numpy' not in sys.modules; "
    "import os; serve._use_one_thread(); print(os.environ['{name}'])"
  ).format(name="OPENBLAS_NUM_THREADS")
  kept = {k: v for k, v in os.environ.items() if "_NUM_THREADS" not in k}
  for given, expected in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "4"}, "4")):
    done = subprocess.run(
      [sys.executable, "-c", code],
      env=kept | given,
      capture_output=True,
      text=True,
      check=True,
    )
    assert done.stdout == f"{expected}\n"


def test_a_missing_package_is_named_with_its_extra(table, monkeypatch):
  whole = builtins.__import__

  def without(name, *given):
    if name == "uvicorn":
      raise ModuleNotFoundError(name=name)
    return whole(name, *given)

  monkeypatch.setattr(builtins, "__import__", without)
  with pytest.raises(errors.InputError, match=r"uvicorn.*pcl_jax\[server\]"):
    serve.main([table])
