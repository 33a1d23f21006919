"""Tests of pcl_jax.common.file_names."""

import io
import os
import sys

import hypothesis
from hypothesis import strategies
import pytest

from pcl_jax.common import errors
from pcl_jax.common import file_names

ODD = os.fsdecode(b"caf\xe9 \xc3\xa9\nb.mp3")
CONTENTS = strategies.one_of(
  strategies.binary(max_size=8), strategies.text(max_size=8).map(str.encode)
)


@pytest.mark.parametrize(
  "name",
  ["a b.mp3", " #1, 100%", "東京\u3000事変", "🎵👩‍👩‍👧", "a\\xe9\u200b\xa0"],
)
def test_a_name_that_people_can_read_is_shown_as_it_is(name):
  assert file_names.shown(name) == name
  assert file_names.to_text(name) == (name, None)


def test_a_name_is_shown_in_one_line_with_escapes():
  assert file_names.shown(ODD) == r"caf\xe9 é\nb.mp3"
  assert file_names.shown("\x1b[2J\u2028\ud800") == r"\x1b[2J\u2028\ud800"


@hypothesis.given(CONTENTS)
@hypothesis.settings(max_examples=200, derandomize=True, deadline=None)
def test_names_of_any_bytes_come_back_from_text_in_utf_8(content):
  name = os.fsdecode(content)
  text, exact = file_names.to_text(name)
  assert file_names.from_text(text.encode().decode(), exact) == name
  assert file_names.is_text(name) == (exact is None)
  assert len(file_names.shown(name).splitlines()) <= 1


def test_what_no_file_is_called_is_no_text():
  assert not file_names.is_text("\ud800") and file_names.is_text("\u00e9")


@pytest.mark.parametrize(
  "encoding, printed",
  [
    ("ascii", rb"\u6771 \xe9 caf\xe9"),
    ("latin-1", b"\\u6771 \xe9 caf\\xe9"),
    ("utf-8", "東 é caf\\xe9".encode()),
  ],
)
def test_a_stream_of_any_encoding_takes_any_name(
  monkeypatch, encoding, printed
):
  streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
  monkeypatch.setattr(sys, "stdout", streams[0])
  monkeypatch.setattr(sys, "stderr", streams[1])
  name = "東 é " + os.fsdecode(b"caf\xe9")

  def main():
    print(name)
    raise errors.InputError(f"{name} is\nbad")

  with pytest.raises(SystemExit):
    errors.run_command(main)
  written = []
  for stream in streams:
    stream.flush()
    written.append(stream.buffer.getvalue())
  assert written[0] == printed + b"\n"
  assert written[1] == b"error: " + printed + b" is\\nbad\n"


def test_a_tilde_is_the_users_folder(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert file_names.path("~/a/~b") == tmp_path / "a" / "~b"
  for odd in ("~nobody-of-this-name/a", "~\0", "~a\ud800/b"):
    assert str(file_names.path(odd)) == odd
