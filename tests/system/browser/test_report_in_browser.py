"""The report page, read in Chromium as a person would."""

import pathlib
import shutil

import pytest

from pcl_jax.pages import report_page
from tests.support import quick_backbone
from tests.support import reported_run
from tests.support.browser import browsers

pytest.importorskip("jinja2")
pytest.importorskip("vl_convert")
pytestmark = [
  pytest.mark.long,
  pytest.mark.usefixtures("quick_compilation"),
]

SCRIPT = (
  pathlib.Path(__file__).parents[2] / "support" / "browser" / "read_report.mjs"
).resolve()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  """A folder with the packages of the script."""
  made = tmp_path_factory.mktemp("npm")
  (made / "package.json").write_text("{}")
  browsers.install(made, "playwright-core", "axe-core")
  return made


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_compilation) -> pathlib.Path:
  """A run whose songs can be heard."""
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    root = tmp_path_factory.mktemp("reported")
    made = reported_run.make(root)
    reported_run.write_clips(root / "data", 60)
    yield made


def _read(folder: pathlib.Path, page: pathlib.Path) -> dict:
  read = browsers.run(SCRIPT, folder, page.as_uri(), browsers.chromium())
  assert read["said"] == []
  assert read["violations"] == []
  assert all(one.startswith(("file:", "data:")) for one in read["asked"])
  assert read["charts"] >= read["places"] > 0
  assert read["overhang"] <= 0
  return read


def test_the_map_has_all_songs_and_a_click_shows_and_plays_neighbours(
  folder, run
):
  (page,) = report_page.write([run]).paths
  read = _read(folder, page)
  assert read["dots"] == 60
  assert reported_run.ODD_NAMES[1] in read["clicked"]
  assert read["neighbours"] == 10
  cosines = list(map(float, read["cosines"]))
  assert cosines == sorted(cosines, reverse=True)
  wanted, shown = read["followed"]
  assert wanted == shown
  assert read["played"] == pytest.approx(1, abs=0.1)
  values = list(map(float, read["sorted"]))
  assert read["order"] == "descending"
  assert values == sorted(values, reverse=True)


def test_a_page_of_two_runs_with_data_beside_it_shows_the_same(
  folder, run, monkeypatch, tmp_path
):
  monkeypatch.setattr(report_page.page_files, "MOST_BYTES", 950_000)
  other = shutil.copytree(run, tmp_path / "other")
  page, *beside = report_page.write([run, other]).paths
  assert beside
  assert _read(folder, page)["dots"] == 60


def test_a_page_of_a_run_without_results_has_its_curves(folder, run, tmp_path):
  for name in ("config.json", "metrics.jsonl"):
    (tmp_path / name).write_bytes((run / name).read_bytes())
  (page,) = report_page.write([tmp_path]).paths
  read = _read(folder, page)
  assert "dots" not in read
  assert read["places"] == 5
