"""Tests of pcl_jax.library.playlist_files."""

import json
import os

import pytest

from pcl_jax.library import playlist_files


def _read(tmp_path, suffix, content):
  """Returns {title: [places of each entry]} of a file."""
  path = tmp_path / f"name{suffix}"
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  found, _ = playlist_files.read_playlists(path)
  return {one.title: [entry.places for entry in one.entries] for one in found}


@pytest.mark.parametrize(
  "encoding, found",
  [
    ("utf-8", "utf-8-sig"),
    ("utf-8-sig", "utf-8-sig"),
    ("utf-16", "utf-16"),
    ("utf-16-le", "utf-16-le"),
    ("utf-16-be", "utf-16-be"),
    ("cp1252", "cp1252"),
    ("latin-1", "latin-1"),
  ],
)
def test_playlists_are_read_in_their_encoding(tmp_path, encoding, found):
  path = tmp_path / "a.m3u"
  # Where the one is a character, the other is none; neither ends a line.
  odd = "\u2026" if encoding == "cp1252" else "\x81\x85"
  text = f"#EXTM3U\r\n#EXTINF:1,é\r\n\r\nCafé/Ça.mp3 \r\nb{odd}.mp3\rc.mp3"
  path.write_bytes(text.encode(encoding))
  (playlist,), known = playlist_files.read_playlists(path)
  entries = [one.shown for one in playlist.entries]
  assert entries == ["Café/Ça.mp3", f"b{odd}.mp3", "c.mp3"]
  # A name may end with a space.
  assert playlist.entries[0].places == ("Café/Ça.mp3 ", "Café/Ça.mp3")
  assert all(one.places == (one.shown,) for one in playlist.entries[1:])
  assert (playlist.title, known) == ("a", found)


def test_lines_that_begin_with_a_hash_are_entries_if_they_are_files(tmp_path):
  (tmp_path / "#sub").mkdir()
  for name in ("#1 Crush.mp3", "#sub/a.mp3", " b.mp3"):
    (tmp_path / name).touch()
  lines = [
    "#EXTM3U", "#EXTINF:5,Garbage - #1 Crush.mp3", "#1 Crush.mp3",
    "#sub/a.mp3", "# a comment.mp3", "#sub", "#" + "x" * 9999, " b.mp3",
  ]  # fmt: skip
  assert _read(tmp_path, ".m3u", "\n".join(lines)) == {
    "name": [("#1 Crush.mp3",), ("#sub/a.mp3",), (" b.mp3", "b.mp3")]
  }
  (tmp_path / "lists").mkdir()
  path = tmp_path / "lists" / "a.m3u"
  path.write_text("#1 Crush.mp3\n#sub\\a.mp3")
  for roots, count in (([], 0), ([tmp_path], 2)):
    (playlist,), _ = playlist_files.read_playlists(path, roots)
    assert len(playlist.entries) == count
  titled = "#EXTM3U\n#PLAYLIST: My Mix \nc.mp3"
  assert _read(tmp_path, ".m3u8", titled) == {"My Mix": [("c.mp3",)]}


def test_pls_entries_are_in_the_order_of_their_numbers(tmp_path):
  text = (
    "[playlist]\r\nFile10=c d.mp3\r\nTitle10=x\r\nfile2 = b=.mp3\r\n"
    "File1=a.mp3\r\nLength1=-1\r\nNumberOfEntries=3\r\nVersion=2\r\n"
  )
  expected = {"name": [("a.mp3",), ("b=.mp3",), ("c d.mp3",)]}
  assert _read(tmp_path, ".pls", text) == expected
  assert _read(tmp_path, ".PLS", "[Playlist]\n") == {"name": []}
  assert _read(tmp_path, ".pls", "File" + "9" * 5000 + "=a") == {
    "name": [("a",)]
  }
  with pytest.raises(playlist_files.UnreadablePlaylist, match="File1="):
    _read(tmp_path, ".pls", "a.mp3\nb.mp3\n")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_holds_several_playlists_with_columns_in_any_order(
  tmp_path, delimiter
):
  rows = [
    ["Path", "year", " PLAYLIST "],
    ["a.mp3", "1", "One"],
    [f'"x{delimiter} ""y"".mp3"', "2", "Two"],
    [],
    ["b.mp3", "3", '"One"'],
    ['"line\nbreak.mp3"', "", "Two"],
  ]
  text = "\r\n".join(delimiter.join(row) for row in rows)
  assert _read(tmp_path, ".csv", text) == {
    "One": [("a.mp3",), ("b.mp3",)],
    "Two": [(f'x{delimiter} "y".mp3',), ("line\nbreak.mp3",)],
  }


def test_rows_of_a_csv_that_say_too_little_are_shown_with_their_line(tmp_path):
  path = tmp_path / "a.csv"
  path.write_text("playlist,path\nOne\n,a.mp3\nOne,b.mp3,more\n ,\n")
  found, _ = playlist_files.read_playlists(path)
  assert {one.title: [e.shown for e in one.entries] for one in found} == {
    "One": ["line 2 (no path): ['One']", "b.mp3"],
    "": ["line 3 (no playlist): ['', 'a.mp3']"],
  }
  assert found[0].entries[0].places == found[1].entries[0].places == ()


@pytest.mark.parametrize(
  "text", ["", "a,b\n1,2\n", "playlist,song\n", '"', "\n\n,\npath\n"]
)
def test_a_csv_without_the_two_columns_is_no_playlist(tmp_path, text):
  with pytest.raises(playlist_files.NotAPlaylist, match="playlist and path"):
    _read(tmp_path, ".csv", text)


def test_a_csv_with_an_open_quote_is_damaged_and_swallows_nothing(tmp_path):
  with pytest.raises(playlist_files.UnreadablePlaylist, match="line 3"):
    _read(tmp_path, ".csv", 'playlist,path\nA,"a.mp3\nA,b.mp3\n')


def test_jspf_is_read(tmp_path):
  tracks = [
    {"location": ["a.mp3", "http://x/a.mp3"], "title": "A"},
    {"location": "b.mp3"},
    {"title": "C", "creator": "D"},
    {"location": [None, 3, ""]},
    "e.mp3",
  ]
  path = tmp_path / "a.jspf"
  value = {"playlist": {"title": " T ", "track": tracks}}
  path.write_text(json.dumps(value), encoding="utf-8-sig")
  (playlist,), _ = playlist_files.read_playlists(path)
  assert playlist.title == "T"
  assert [(one.shown, one.places) for one in playlist.entries] == [
    ("a.mp3", ("a.mp3", "http://x/a.mp3")),
    ("b.mp3", ("b.mp3",)),
    ("track 3 (no location): D - C", ()),
    ("track 4 (no location): ", ()),
    ("track 5 (str, not an object)", ()),
  ]


@pytest.mark.parametrize(
  "text, reason",
  [
    ("", "not json"),
    ('{"playlist": {"track": [', "not json"),
    ("[" * 100_000, "not json"),
    ("9" * 10_000, "not json"),
    ("[]", 'object "playlist"'),
    ('{"playlist": []}', 'object "playlist"'),
    ('{"playlist": {"track": {}}}', "not a list"),
  ],
)
def test_jspf_that_is_none_is_refused_with_the_reason(tmp_path, text, reason):
  with pytest.raises(playlist_files.UnreadablePlaylist, match=reason):
    _read(tmp_path, ".jspf", text)


_XSPF = """<?xml version="1.0" encoding="{encoding}"?>
<playlist version="1" xmlns="http://xspf.org/ns/0/">
 <title>Café</title>
 <trackList>
  <track><location> a%20b.mp3 </location><title>x</title></track>
  <track><location>file:///c.mp3</location><location>c&amp;.mp3</location>
   <extension application="x"><location>no</location></extension></track>
  <track><title>Only é</title></track>
 </trackList>
 <location>no</location>
</playlist>"""


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16", "windows-1252"])
def test_xspf_is_read(tmp_path, encoding):
  path = tmp_path / "a.xspf"
  path.write_bytes(_XSPF.format(encoding=encoding).encode(encoding))
  (playlist,), known = playlist_files.read_playlists(path)
  assert (playlist.title, known) == ("Café", encoding.lower())
  assert [(one.shown, one.places) for one in playlist.entries] == [
    ("a%20b.mp3", ("a%20b.mp3",)),
    ("file:///c.mp3", ("file:///c.mp3", "c&.mp3")),
    ("track 3 (no location): Only é", ()),
  ]


@pytest.mark.parametrize(
  "text, reason",
  [
    ("", "well-formed"),
    ("<playlist><trackList><track>", "well-formed"),
    ("<playlist>&x;</playlist>", "well-formed"),
    ("<?xml version='1.0' encoding='nonsense'?><playlist/>", "well-formed"),
    ("<html/>", "outermost element is 'html'"),
    ("<playlist/><playlist/>", "well-formed"),
  ],
)
def test_xspf_that_is_none_is_refused_with_the_reason(tmp_path, text, reason):
  with pytest.raises(playlist_files.UnreadablePlaylist, match=reason):
    _read(tmp_path, ".xspf", text)


def _bomb():
  levels = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(20))
  return f'<!DOCTYPE playlist [<!ENTITY e0 "x">{levels}]>', "&e20;"


@pytest.mark.parametrize(
  "declaration, use",
  [
    _bomb(),
    ('<!DOCTYPE playlist [<!ENTITY x SYSTEM "SECRET">]>', "&x;"),
    ('<!DOCTYPE playlist SYSTEM "SECRET">', ""),
    ('<!DOCTYPE playlist [<!ENTITY % x SYSTEM "SECRET"> %x;]>', ""),
  ],
  ids=["expansion", "external", "external type", "parameter"],
)
def test_hostile_xml_is_refused_before_anything_is_expanded_or_opened(
  tmp_path, declaration, use
):
  secret = tmp_path / "secret"
  secret.write_text("secret")
  declaration = declaration.replace("SECRET", secret.as_uri())
  text = (
    f"{declaration}<playlist><trackList><track><location>{use}</location>"
    "</track></trackList></playlist>"
  )
  with pytest.raises(playlist_files.UnreadablePlaylist, match="DOCTYPE"):
    _read(tmp_path, ".xspf", text)


def test_deep_xml_is_read_to_its_end(tmp_path):
  depth = 50_000
  text = "<playlist>" + "<a>" * depth + "</a>" * depth + "</playlist>"
  assert _read(tmp_path, ".xspf", text) == {"name": []}


def test_a_file_of_another_kind_is_refused_with_the_reason(
  tmp_path, monkeypatch
):
  refused = playlist_files.UnreadablePlaylist
  with pytest.raises(refused, match="bytes of value 0"):
    _read(tmp_path, ".m3u", b"abc\0\0\0def")
  (tmp_path / "folder.m3u").mkdir()
  os.mkfifo(tmp_path / "pipe.m3u")
  for name in ("folder.m3u", "pipe.m3u", "absent.m3u"):
    with pytest.raises(refused, match="not a file"):
      playlist_files.read_playlists(tmp_path / name)
  monkeypatch.setattr(playlist_files, "_MAX_BYTES", 3)
  with pytest.raises(refused, match="4 bytes, more than the 3"):
    _read(tmp_path, ".m3u", b"abcd")
