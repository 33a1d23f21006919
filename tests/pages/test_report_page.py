"""Tests of pcl_jax.report and of the page that it writes."""

from html import parser
import json
import pathlib
import shutil
import sys

import numpy as np
import pytest

from pcl_jax import report as command
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import catalogues
from pcl_jax.evaluation import compare
from pcl_jax.evaluation import report
from pcl_jax.pages import page_files
from pcl_jax.pages import report_page
from pcl_jax.pages import song_map
from tests.support import reported_run

pytestmark = pytest.mark.usefixtures("quick_compilation")

DATA = ("history", "songs", "items", "charts")


class _Reader(parser.HTMLParser):
  """Collects the elements of a page, its addresses, its texts and scripts."""

  def __init__(self, content: str):
    super().__init__()
    self.tags, self.addresses, self.texts, self.scripts = [], [], [], []
    self._within = ""
    self.feed(content)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self._within = tag
    values = dict(attrs)
    self.addresses += [values[k] for k in ("src", "href") if k in values]

  def handle_endtag(self, tag):
    self._within = ""

  def handle_data(self, data):
    kept = self.scripts if self._within == "script" else self.texts
    kept.append(data)

  @property
  def text(self) -> str:
    return " ".join(self.texts)

  def data(self) -> dict:
    """Returns the data of the scripts, by name."""
    found = {}
    for script in self.scripts:
      script = script.strip()
      if script.startswith('pcl_data["'):
        name, content = script.split("=", 1)
        found[name.split('"')[1]] = json.loads(content.removesuffix(";"))
    return found


def _read(path: pathlib.Path) -> _Reader:
  return _Reader(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def page(made, tmp_path_factory, quick_compilation) -> _Reader:
  out = tmp_path_factory.mktemp("page") / "out.html"
  written = report_page.write([made], out)
  assert (written.notes, written.songs, written.heard) == ([], 60, 0)
  assert written.paths == [out]
  return _read(out)


def test_a_page_needs_no_other_file(page):
  local = [one for one in page.addresses if not one.startswith("#")]
  assert local == ["data:,"]
  assert page.tags.count("script") == len(DATA) + 3
  assert set(page.data()) == set(DATA)


def test_a_page_has_every_song_with_its_name_and_neighbours(page, made):
  songs = page.data()["songs"]
  made = catalogues.load(made.parent / "data")
  assert songs["id"] == made.song_ids.tolist()
  for row in range(60):
    title = reported_run.odd_name(row)
    artist = f"artist <b>{row % 7}</b>"
    assert songs["name"][row] == file_names.shown(f"{artist} - {title}")
  place = np.array([songs["x"], songs["y"]])
  assert place.shape == (2, 60) and np.abs(place).max() <= 1
  near = np.array(songs["near"])
  assert near.shape == (60, 10)
  assert all(row not in some for row, some in enumerate(near.tolist()))
  lists = songs["has"]["playlist"]
  for row in range(60):
    titles = {lists["names"][i] for i in lists["of"][row]}
    rows = [i for i in range(30) if row in made.playlists[i]]
    assert len(titles) == len(rows)
  of = songs["has"]["artist"]["of"]
  assert [len(some) for some in of] == made.artists.lengths.tolist()


def test_names_do_not_become_part_of_the_page(page):
  assert "img" not in page.tags
  assert page.tags.count("b") == page.tags.count("i") == 0
  for name, value in page.data().items():
    assert value is not None, name
  scripts = "".join(page.scripts)
  assert "<" not in "".join(one for one in page.scripts if "pcl_data[" in one)
  assert "\u2028" not in scripts and "\u2029" not in scripts
  assert "49" not in page.texts  # 7 * 7, which no template computed.


def test_a_page_shows_each_number_of_the_evaluation(page, made):
  results = json.loads((made / report.FILE_NAME).read_text())
  for rows in results["tasks"].values():
    for row in rows.values():
      for metric in row.get("metrics", {}).values():
        text = report.cell(metric["value"], metric["interval_95"])
        assert text in page.text
  assert "0.750  [0.625, 0.875]" in page.text  # Of the look-up.
  assert "not measured: nobody <i>asked</i>" in page.text
  for one in results["checks"]:
    assert one["found"] in page.text
  assert "undefined" in page.texts  # The rank, which has no chart.
  verdicts = [text for text in page.texts if text in ("passed", "SHARED")]
  assert verdicts == ["passed", "SHARED"]
  assert results["certificate"]["config_sha256"] in page.text


def test_items_are_named_and_have_their_values(page, made):
  items = page.data()["items"]
  assert items.pop("collapse")["columns"] == []  # All undefined.
  assert set(items) == {"artist", "playlist_continuation", "melon_50"}
  found = compare.read(made)
  for task, one in items.items():
    table = found.items(task)
    values = np.array([table[name] for name in table.column_names[1:]])
    np.testing.assert_allclose(one["columns"], values, atol=1e-4)
    assert one["names"] == ["average precision", "r precision"]
  ids = page.data()["songs"]["id"]
  songs = [ids[row] for row in items["artist"]["song"]]
  assert songs == found.items("artist")["song_id"].to_pylist()
  assert items["playlist_continuation"]["label"][0] == "list </script> 0"
  assert items["melon_50"]["label"][0] == "<i>GN0000</i> (GN0000)"


def test_a_page_has_a_curve_of_each_number_of_training(page, made):
  lines = (made / "metrics.jsonl").read_text().splitlines()
  rows = sorted(map(json.loads, lines), key=lambda row: row["kind"])
  history = page.data()["history"]
  assert history["step"] == [row["step"] for row in rows]
  names = {name for row in rows for name in row} - {"kind", "step", "epoch"}
  columns = {key: values for key, values in history.items() if key[0] == "m"}
  assert len(columns) == len(names)
  totals = [row["total"] for row in rows]
  assert any(np.allclose(one, totals, rtol=1e-4) for one in columns.values()
             if None not in one)  # fmt: skip
  curves = [
    one
    for one in page.data()["charts"].values()
    if one["data"].get("name") == "history"
  ]
  assert len(curves) == len(names)


def test_what_a_run_does_not_have_is_said_and_left_out(workdir, capsys):
  (workdir / report.FILE_NAME).unlink()
  (workdir / "metrics.jsonl").unlink()
  shutil.rmtree(workdir / "checkpoints")
  command.main([f"--workdir={workdir}"])
  page = _read(workdir / report_page.FILE_NAME)
  said = capsys.readouterr()
  for text in (
    "has not been evaluated",
    "metrics.jsonl does not exist",
    "There is no map of the songs",
  ):
    assert text in said.err and text in page.text
  assert "h3" not in page.tags and "canvas" not in page.tags
  assert page.data()["songs"] is None
  assert "The whole config" in page.text


def test_of_many_songs_some_are_drawn(made, tmp_path, monkeypatch):
  monkeypatch.setattr(song_map, "MOST_SONGS", 20)
  written = report_page.write([made], tmp_path / "some.html")
  assert written.songs == 20
  (note,) = written.notes
  assert "20 songs that were drawn" in note and "40 others" in note
  songs = _read(tmp_path / "some.html").data()["songs"]
  known = catalogues.load(made.parent / "data").song_ids.tolist()
  assert songs["name"] == [
    file_names.shown(f"artist <b>{row % 7}</b> - {reported_run.odd_name(row)}")
    for row in map(known.index, songs["id"])
  ]
  assert np.max(songs["near"]) < 20


def test_a_step_that_was_not_evaluated_is_told(workdir):
  results = json.loads((workdir / report.FILE_NAME).read_text())
  (workdir / report.FILE_NAME).write_text(json.dumps(results | {"step": 99}))
  (note,) = report_page.write([workdir]).notes
  assert note.startswith("The results are of step 99 and the map is of step 12")


def test_a_page_that_is_too_large_has_its_data_beside_it(
  workdir, monkeypatch, capsys
):
  command.main([f"--workdir={workdir}"])
  out = workdir / report_page.FILE_NAME
  whole = _read(out).data()
  monkeypatch.setattr(page_files, "MOST_BYTES", out.stat().st_size - 1000)
  command.main([f"--workdir={workdir}"])
  page = _read(out)
  (address,) = [one for one in page.addresses if one.endswith(".js")]
  assert out.stat().st_size <= page_files.MOST_BYTES
  script = (workdir / address).read_text("utf-8")
  moved = _Reader(f"<script>{script}</script>").data()
  assert page.data() | moved == whole
  assert str(workdir / "report_files") in capsys.readouterr().out


def test_runs_are_tested_against_the_first(made, workdir, tmp_path):
  out = tmp_path / "both.html"
  command.main(["--compare", str(made), str(workdir), f"--out={out}"])
  page = _read(out)
  assert f"compared with {workdir}" in page.text.replace("\n", " ")
  assert "+0.000  [+0.000, +0.000]" in page.text
  assert set(page.data()["history"]["run"]) == {str(made), str(workdir)}


@pytest.mark.parametrize(
  "spoil, said",
  [
    (lambda run: (run / "config.json").unlink(), "is no folder of a run"),
    (lambda run: (run / "config.json").write_text("{"), "cannot be read"),
    (
      lambda run: (run / "results.json").write_text("{}"),
      "no results of tasks",
    ),
    (
      lambda run: (run / "evaluation" / "artist.parquet").write_bytes(b"x"),
      "artist.parquet cannot be read",
    ),
  ],
)
def test_what_cannot_be_read_is_named(workdir, spoil, said):
  spoil(workdir)
  with pytest.raises(errors.InputError, match=said):
    report_page.write([workdir])


def test_runs_of_other_data_are_not_compared(made, workdir):
  results = json.loads((workdir / report.FILE_NAME).read_text())
  other = json.dumps(results | {"fingerprint": "another"})
  (workdir / report.FILE_NAME).write_text(other)
  with pytest.raises(errors.InputError, match="cannot be compared"):
    report_page.write([made, workdir])


def test_flags_that_name_nothing_are_refused(workdir, tmp_path):
  with pytest.raises(errors.InputError, match="--audio=.* is not a folder"):
    command.main([f"--workdir={workdir}", f"--audio={tmp_path / 'none'}"])
  with pytest.raises(errors.InputError, match="does not exist"):
    command.main([f"--workdir={workdir}", f"--data={tmp_path / 'none'}"])
  with pytest.raises(SystemExit):
    command.main([])


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "vl_convert", None)
  with pytest.raises(errors.InputError, match=r"vl_convert.*pcl_jax\[report\]"):
    page_files.Page("report")


def test_a_page_that_could_not_be_written_is_not_made(
  workdir, tmp_path, monkeypatch
):
  monkeypatch.setattr(report_page, "_read_songs", lambda *_, **__: 1 / 0)
  with pytest.raises(errors.InputError, match="is a folder.*another --out"):
    report_page.write([workdir], tmp_path)
