"""Tests of pcl_jax.common.console."""

import pytest

from pcl_jax.common import console

_PATH = "/home/ann/music/" + 20 * "A long name/" + "01 first song.mp3"


@pytest.mark.parametrize("width", ["", "70", "300"])
def test_lines_are_not_wider_than_the_screen(monkeypatch, width):
  monkeypatch.setenv("COLUMNS", width)
  rows = [["1", _PATH, "short"], ["10", "b.mp3", _PATH[1:]]]
  lines = console.grid(["rank", "path", "name"], rows, shorten=["path", "name"])
  assert max(map(len, lines)) == int(width or 100)
  assert lines[1].split()[0] == "1" and lines[2].split()[1] == "b.mp3"
  assert "first song.mp3  short" in lines[1]
  assert lines[1].split()[1].startswith("/home")


def test_lines_that_are_short_stay_as_they_are():
  rows = [["1", "a.mp3"], ["2", "b long name.mp3"]]
  whole = console.grid(["rank", "path"], rows)
  assert console.grid(["rank", "path"], rows, shorten=["path"]) == whole


def test_a_cell_keeps_some_letters_on_the_narrowest_screen(monkeypatch):
  monkeypatch.setenv("COLUMNS", "3")
  (_, line) = console.grid(["path"], [[_PATH]], shorten=["path"])
  assert line == "/hom...ong.mp3"[:4] + "..." + _PATH[-9:]


@pytest.mark.parametrize("width", [5, 16, 40, len(_PATH), 1000])
def test_what_is_shortened_keeps_its_beginning_and_its_end(width):
  found = console.shortened(_PATH, width)
  assert len(found) == min(width, len(_PATH))
  begin, dots, end = found.partition("...")
  assert _PATH.startswith(begin) and _PATH.endswith(end)
  assert bool(dots) == (width < len(_PATH))
