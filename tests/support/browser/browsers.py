"""Headless Chromium for tests of pages, as far as a machine has it."""

import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

_NPM = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]


def program(*names: str) -> str:
  """Returns the first program that is installed; skips the test without one."""
  found = next(filter(None, map(shutil.which, names)), None)
  if found is None:
    pytest.skip(f"needs {' or '.join(names)}, which is not installed")
  return found


def chromium() -> str:
  """Returns the browser."""
  return program("chromium", "chromium-browser", "google-chrome")


def install(folder: pathlib.Path, *packages: str) -> None:
  """Installs what package.json of a folder asks for, and packages.

  Skips the test where npm cannot.
  """
  program("node")
  program("npm")
  done = subprocess.run(
    [*_NPM, *packages], cwd=folder, capture_output=True, text=True, check=False
  )
  if done.returncode:
    pytest.skip(f"npm cannot install the page's packages: {done.stderr[-200:]}")


def run(
  script: pathlib.Path, folder: pathlib.Path, *words: str | os.PathLike[str]
) -> Any:
  """Runs a script of node in a folder; returns the json that it prints."""
  done = subprocess.run(
    ["node", script, *map(os.fspath, words)],
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)
