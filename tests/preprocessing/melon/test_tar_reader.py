"""Tests of preprocessing.melon.tar_reader and melon_source."""

import io
import pathlib
import re
import tarfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from preprocessing.melon import melon_source
from preprocessing.melon import melon_spectrogram
from preprocessing.melon import tar_reader
from tests.support.tiny import tiny_melon

BODIES = {5: b"five" * 300, 999: b"", 1000: b"x" * 512, 70_123: b"y" * 513}


def _write(path: pathlib.Path, **settings) -> pathlib.Path:
  return tiny_melon.write_tar(
    path,
    [(tiny_melon.member_name(i), body) for i, body in BODIES.items()],
    **settings,
  )


def _read(path, wanted=lambda member: True) -> tuple[dict, tar_reader.Tar]:
  tar = tar_reader.Tar(path)
  found = {
    member.song_id: bytes(data) if isinstance(data, memoryview) else data
    for member, data in tar.read(wanted)
    if member
  }
  return found, tar


@pytest.mark.parametrize(
  "settings",
  [
    {"format": tarfile.USTAR_FORMAT},
    {"format": tarfile.GNU_FORMAT},
    {"format": tarfile.PAX_FORMAT},
    {"format": tarfile.PAX_FORMAT, "pax_headers": {"comment": "c" * 600}},
  ],
)
def test_songs_of_every_kind_of_tar_are_read(tmp_path, settings):
  found, tar = _read(_write(tmp_path / "a.tar", **settings))
  assert found == BODIES
  assert not tar.damage and tar.songs == len(BODIES) and not tar.ignored
  assert tar.place == tar.size == (tmp_path / "a.tar").stat().st_size


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_belong_to_the_member_behind_them(tmp_path, form):
  long = "./" * 80 + "arena_mel/0/7.npy"
  path = tiny_melon.write_tar(
    tmp_path / "a.tar", [(long, b"seven"), ("1/1002.npy", b"2")], format=form
  )
  found, tar = _read(path)
  assert found == {7: b"seven", 1002: b"2"} and not tar.damage


def test_a_size_in_a_pax_record_is_the_members(tmp_path):
  info = tarfile.TarInfo("0/7.npy")
  info.size, info.pax_headers = 5, {"size": "5", "path": "./0/8.npy"}
  with tarfile.open(tmp_path / "a.tar", "w") as tar:
    tar.addfile(info, io.BytesIO(b"seven"))
  assert _read(tmp_path / "a.tar")[0] == {8: b"seven"}


def test_only_wanted_songs_are_read(tmp_path):
  path = _write(tmp_path / "a.tar")
  found, tar = _read(path, lambda member: member.song_id == 1000)
  assert found == {1000: BODIES[1000]} and tar.songs == 4


HOSTILE = (
  "/arena_mel/0/1.npy", "arena_mel/../0/1.npy", "../arena_mel/0/1.npy",
  "arena_mel/0/x.npy", "arena_mel/0/-1.npy", "arena_mel/0/01.npy",
  "arena_mel/0/1.npy.npy", "arena_mel/1/1.npy", "arena_mel/0/1.NPY",
  "arena_mel//0/1.npy", "arena_mel/0/1.npy\n", "arena_mel/0/٣.npy",
  "other/arena_mel/0/1.npy", "arena_mel/0/._1.npy", "0/99999999999999.npy",
)  # fmt: skip


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_hostile_names_are_counted_and_left_alone(tmp_path, form):
  members = [(name, b"h") for name in HOSTILE] + [("arena_mel/0/2.npy", b"2")]
  path = tiny_melon.write_tar(tmp_path / "a.tar", members, format=form)
  found, tar = _read(path)
  assert found == {2: b"2"} and not tar.damage
  assert tar.ignored == {"not named like a song's file": len(HOSTILE)}
  assert tar.examples and all(one.isprintable() for one in tar.examples)
  assert [one.name for one in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize(
  "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_counted_and_left_alone(tmp_path, kind):
  info = tarfile.TarInfo("arena_mel/0/1.npy")
  info.type, info.linkname, info.size = kind, "/etc/passwd", 0
  good = tarfile.TarInfo("arena_mel/0/2.npy")
  folder = tarfile.TarInfo("arena_mel/0")
  folder.type = tarfile.DIRTYPE
  with tarfile.open(tmp_path / "a.tar", "w") as tar:
    for one in (folder, info, good):
      tar.addfile(one, io.BytesIO())
  found, tar = _read(tmp_path / "a.tar")
  assert found == {2: b""} and tar.ignored.total() == 1


def test_sparse_members_are_passed_over(tmp_path):
  info = tarfile.TarInfo("arena_mel/0/1.npy")
  info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
  header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
  header[482] = 1  # One more block of the map follows.
  header[148:156] = b" " * 8
  header[148:156] = b"%06o\0 " % sum(header)
  rest = tiny_melon.write_tar(tmp_path / "b.tar", [("0/2.npy", b"2")])
  path = tmp_path / "a.tar"
  path.write_bytes(bytes(header) + bytes(512) + b"d" * 512 + rest.read_bytes())
  found, tar = _read(path)
  assert found == {2: b"2"} and tar.ignored.total() == 1 and not tar.damage


def _header(size: int) -> bytes:
  info = tarfile.TarInfo("arena_mel/0/1.npy")
  info.size = size
  return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [2**40, 2**70, -5])
def test_impossible_sizes_are_damage(tmp_path, size):
  (tmp_path / "a.tar").write_bytes(_header(size) + bytes(4096))
  found, tar = _read(tmp_path / "a.tar")
  assert tar.damage
  assert all(
    isinstance(one, melon_spectrogram.UnusableFile) for one in found.values()
  )


def test_a_member_too_large_to_be_a_song_is_not_read(tmp_path):
  size = melon_spectrogram.MAX_FILE_BYTES + 512
  with open(tmp_path / "a.tar", "wb") as file:
    file.write(_header(size))
    file.truncate(512 + size)  # Takes no room.
    file.seek(0, 2)
    file.write(bytes(1024))
  found, tar = _read(tmp_path / "a.tar")
  assert found[1].reason == "too large" and not tar.damage


@pytest.mark.parametrize("size", range(0, 6 * 512, 100))
def test_a_truncated_tar_is_used_up_to_there_and_named_damaged(tmp_path, size):
  path = _write(tmp_path / "a.tar")
  path.write_bytes(path.read_bytes()[:size])
  found, tar = _read(path)
  assert tar.damage and tar.place == tar.size
  whole = {i: one for i, one in found.items() if isinstance(one, bytes)}
  assert whole == {i: BODIES[i] for i in whole}
  # A song counts as whole when the next header's magic word is there too.
  assert len(whole) == sum(size >= end for end in (2310, 2822))
  for one in found.values():
    assert isinstance(one, bytes) or re.search("damaged|ends", one.detail)


@pytest.mark.parametrize(
  ("begin", "end", "lost"),
  [
    (0, 512, {5}),
    (2048, 2560, {5, 999}),  # Nothing shows that song 5 ended there.
    (2048, 3072, {5, 999, 1000}),
    (2060, 2100, {999}),
  ],
)
def test_a_hole_of_zeros_is_damage_and_no_end(tmp_path, begin, end, lost):
  path = _write(tmp_path / "a.tar")
  data = bytearray(path.read_bytes())
  data[begin:end] = bytes(end - begin)
  path.write_bytes(data)
  found, tar = _read(path)
  assert tar.damage
  whole = _whole(found)
  assert whole == {i: one for i, one in BODIES.items() if i not in lost}


_RANDOM = {
  i: np.random.default_rng(i).bytes(size)
  for i, size in ((5, 1200), (999, 0), (1000, 512), (70_123, 513), (6, 1024))
}
_HEADERS = {5: 0, 999: 2048, 1000: 2560, 70_123: 3584, 6: 5120, None: 6656}


def _write_random(path: pathlib.Path) -> bytearray:
  members = [(tiny_melon.member_name(i), one) for i, one in _RANDOM.items()]
  return bytearray(tiny_melon.write_tar(path, members).read_bytes())


def _whole(found: dict) -> dict:
  return {i: one for i, one in found.items() if isinstance(one, bytes)}


@pytest.mark.parametrize("place", [8, 100, 124, 136, 150, 156, 330])
def test_a_flipped_byte_in_a_header_costs_that_member_alone(tmp_path, place):
  path = tmp_path / "a.tar"
  data = _write_random(path)
  data[2560 + place] ^= 2
  path.write_bytes(data)
  found, tar = _read(path)
  assert _whole(found) == {i: one for i, one in _RANDOM.items() if i != 1000}
  assert "bytes 2560 to 3584 (1024) are passed over" in tar.damage
  assert (tar.gaps, tar.gap_bytes) == (1, 1024)
  if place > 100:  # Its name is as it was.
    assert "header at byte 2560" in found[1000].detail


def test_a_song_before_a_header_without_its_magic_word_is_not_trusted(tmp_path):
  path = tmp_path / "a.tar"
  data = _write_random(path)
  data[2560 + 257] ^= 2
  path.write_bytes(data)
  found, tar = _read(path)
  lost = (999, 1000)
  assert _whole(found) == {i: b for i, b in _RANDOM.items() if i not in lost}
  assert "no header is at 2560" in tar.damage


def test_the_text_of_a_long_name_is_no_header(tmp_path):
  names = {i: tiny_melon.member_name(i) for i in _RANDOM}
  names[1000] = "./" * 60 + names[1000]
  path = tmp_path / "a.tar"
  members = [(names[i], body) for i, body in _RANDOM.items()]
  tiny_melon.write_tar(path, members, format=tarfile.GNU_FORMAT)
  data = bytearray(path.read_bytes())
  # Behind what is left of song 5 there is now the end of the long name.
  del data[866 : 866 + 1108]
  path.write_bytes(data)
  found, tar = _read(path)
  assert tar.damage
  assert _whole(found) == {i: _RANDOM[i] for i in _whole(found)}


def test_several_gaps_are_counted_and_the_first_are_named(tmp_path):
  path = tmp_path / "a.tar"
  members = [(tiny_melon.member_name(i), b"%d" % i) for i in range(20)]
  data = bytearray(tiny_melon.write_tar(path, members).read_bytes())
  for i in range(2, 18, 3):
    data[i * 1024 : i * 1024 + 512] = b"?" * 512
  path.write_bytes(data)
  found, tar = _read(path)
  assert _whole(found) == {
    i: b"%d" % i for i in range(20) if i % 3 == 0 or i == 19
  }
  assert (tar.gaps, tar.gap_bytes) == (6, 6 * 1536)
  assert "bytes 1536 to 3072" in tar.damage and "17408" not in tar.damage
  assert "and 3 more of such places; 9216 bytes" in tar.damage


def test_headers_are_found_across_the_edges_of_what_is_read_at_a_time(
  tmp_path, monkeypatch
):
  path = tmp_path / "a.tar"
  data = _write_random(path)
  data[2560] ^= 1
  path.write_bytes(data)
  for size in (513, 700, 1024, 1500):
    monkeypatch.setattr(tar_reader, "_CHUNK_BYTES", size)
    assert _read(path)[1].gap_bytes == 1024


@hypothesis.given(
  place=st.integers(0, 6656), extra=st.binary(min_size=1, max_size=1100)
)
@hypothesis.settings(deadline=None, max_examples=50)
def test_bytes_put_in_cost_the_songs_beside_them(
  tmp_path_factory, place, extra
):
  path = tmp_path_factory.getbasetemp() / "put_in.tar"
  data = _write_random(path)
  data[place:place] = extra + b"?"  # Zeros alone would be padding.
  path.write_bytes(data)
  found, tar = _read(path)
  assert tar.damage
  whole = _whole(found)
  assert whole == {i: _RANDOM[i] for i in whole}
  order = list(_HEADERS)
  hit = next((i for i in order if _HEADERS[i] > place), None)
  hit = order.index(hit) - 1
  kept = [one for i, one in enumerate(order[:-1]) if i not in (hit - 1, hit)]
  assert set(kept) <= set(whole)


@hypothesis.given(place=st.integers(0, 6655), count=st.integers(1, 3000))
# What is left of song 5 ends in another song's padding, all zeros as its own.
@hypothesis.example(place=585, count=3000)
@hypothesis.settings(deadline=None, max_examples=50)
def test_bytes_that_got_lost_cost_the_songs_beside_them(
  tmp_path_factory, place, count
):
  # A row of whole blocks may be just what a file less would look like.
  hypothesis.assume(count % 512)
  path = tmp_path_factory.getbasetemp() / "lost.tar"
  data = _write_random(path)
  del data[place : place + count]
  path.write_bytes(data)
  found, tar = _read(path)
  assert tar.damage
  whole = _whole(found)
  assert whole == {i: _RANDOM[i] for i in whole}
  before = [i for i in _RANDOM if _HEADERS[i] + 512 + len(_RANDOM[i]) <= place]
  behind = [i for i in _RANDOM if _HEADERS[i] >= place + count]
  assert set(before[:-1] + behind) <= set(whole)


@pytest.mark.parametrize("data", [b"", bytes(10240), b"\x1f\x8b" + b"z" * 9999])
def test_what_is_no_tar_is_damaged(tmp_path, data):
  (tmp_path / "a.tar").write_bytes(data)
  found, tar = _read(tmp_path / "a.tar")
  assert not found and tar.damage


def test_tars_are_taken_in_the_order_of_their_numbers(tmp_path):
  for i in (10, 2, 0, 39, 1):
    (tmp_path / f"arena_mel_{i}.tar").touch()
  (tmp_path / "other_3.tar").touch()
  names = [path.stem for path in melon_source.find_tars(tmp_path)]
  assert names == [f"arena_mel_{i}" for i in (0, 1, 2, 10, 39)]


_EDIT = st.tuples(
  st.integers(0, 12), st.integers(0, 511), st.binary(min_size=1, max_size=12)
)


@hypothesis.given(
  edits=st.lists(_EDIT, max_size=4),
  signed=st.booleans(),
  size=st.one_of(st.none(), st.integers(0, 12 * 512)),
)
@hypothesis.settings(deadline=None, max_examples=80)
def test_any_bytes_are_songs_or_damage(tmp_path_factory, edits, signed, size):
  folder = tmp_path_factory.getbasetemp()
  path = _write(folder / "fuzzed.tar", format=tarfile.PAX_FORMAT)
  data = bytearray(path.read_bytes())
  for block, place, new in edits:
    data[block * 512 + place : block * 512 + place + len(new)] = new
  if signed:  # Right checksums let mistakes through to the fields behind.
    for begin in range(0, 12 * 512, 512):
      if data[begin + 257 : begin + 262] == b"ustar":
        data[begin + 148 : begin + 156] = b" " * 8
        total = sum(data[begin : begin + 512])
        data[begin + 148 : begin + 156] = b"%06o\0 " % total
  path.write_bytes(data[:size])
  found, tar = _read(path)
  assert tar.damage.isprintable() and tar.place == tar.size
  if size is not None and size < 11 * 512:  # Where the end mark has ended.
    assert tar.damage
  for one in found.values():
    if isinstance(one, bytes):
      assert one in bytes(data)
    else:
      assert tar.damage
