"""Tests that any playlist file is read or refused with a message."""

import pathlib
import tempfile

import hypothesis
from hypothesis import strategies as st
import pytest

from pcl_jax.library import playlist_files
from preprocessing.library import library_meta
from tests.support.tiny import tiny_library

_quick = hypothesis.settings(
  max_examples=30,
  deadline=None,
  database=None,
  suppress_health_check=list(hypothesis.HealthCheck),
)
# Pieces of all formats, so that what is drawn gets behind the first line.
_PIECES = [
  b"playlist,path\n",
  b'path;playlist\n"a;b";',
  b"[playlist]\nFile1=",
  b"File2=../a.mp3\n",
  b'{"playlist": {"track": [{"location": ',
  b'"a.mp3"}]}}',
  b"[" * 2000,
  b"<?xml version='1.0' encoding='utf-16'?>",
  b"<playlist><trackList><track><location>",
  b"</location></track></trackList></playlist>",
  b"<!DOCTYPE playlist [<!ENTITY a 'b'>]>&a;",
  b"#EXTM3U\n",
  b"file://[::1/%E9%00%2e\\..\\a.mp3\n",
  b"a.mp3\n",
  b"\xff\xfe",
  b"\xef\xbb\xbf",
  b"\0",
  b"\r",
  b'"',
  "é\u2028\U0001f3b5".encode(),
]
_content = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=30)).map(
  b"".join
)
# No '\r', '\n' nor what ends a line elsewhere: such names cannot be written.
_name = st.text(
  st.characters(exclude_characters="\r\n\0/", exclude_categories=("Cs",)),
  min_size=1,
  max_size=20,
).map(lambda text: text.strip(" \t") or "x")


@pytest.mark.parametrize("suffix", playlist_files.SUFFIXES)
@_quick
@hypothesis.given(_content)
def test_any_playlist_file_is_read_or_named_and_every_entry_accounted_for(
  suffix, content
):
  with tempfile.TemporaryDirectory() as folder:
    audio_dir = pathlib.Path(folder)
    (audio_dir / f"x{suffix}").write_bytes(content)
    found = library_meta.write_meta(
      audio_dir, audio_dir / "meta", {"a.mp3": 0, "b.mp3": 1}, {0}
    )
    reports, others = found["playlist_files"], found["not_playlists"]
    assert len(reports) + len(others) == 1
    for one in reports:
      listed = len(one["left_out"]) + len(one["not_found"])
      assert one["entries"] == one["songs"] + one["repeated"] + listed
      assert not one.get("unreadable") or one["entries"] == 0
    tiny_library.read_json(audio_dir / "meta" / "train.json")


def _written(suffix, names):
  """Returns a playlist file of some names, as its format has it."""
  if suffix in (".m3u", ".m3u8"):
    return "\n".join(["#EXTM3U", *names])
  if suffix == ".pls":
    lines = [f"File{i}={name}" for i, name in enumerate(names, 1)]
    return "\n".join(["[playlist]", *lines])
  if suffix == ".csv":
    quoted = [name.replace('"', '""') for name in names]
    return "path,playlist\n" + "".join(f'"{one}",x\n' for one in quoted)
  if suffix == ".jspf":
    tracks = [{"location": [name]} for name in names]
    return playlist_files.json.dumps({"playlist": {"track": tracks}})
  escaped = [
    name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for name in names
  ]
  tracks = [f"<track><location>{one}</location></track>" for one in escaped]
  return f"<playlist><trackList>{''.join(tracks)}</trackList></playlist>"


@pytest.mark.parametrize("suffix", playlist_files.SUFFIXES)
@_quick
@hypothesis.given(st.lists(_name, max_size=8))
def test_every_name_that_is_written_is_read_again(suffix, names):
  if suffix in (".m3u", ".m3u8"):
    names = [name for name in names if name[0] != "#"]
  if suffix == ".xspf":  # XML has no control characters, and strips blanks.
    names = [name.strip() for name in names if name.isprintable()]
    names = [name for name in names if name]
  if suffix in (".jspf", ".csv"):
    names = [name for name in (one.strip() for one in names) if name]
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f"x{suffix}"
    path.write_bytes(_written(suffix, names).encode())
    found, _ = playlist_files.read_playlists(path)
  read = [entry.places[0] for one in found for entry in one.entries]
  assert read == names
