"""Tests that the documents name what exists: files, and tests."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ["README.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TEST = re.compile(r"(tests/[\w/]+/test_\w+\.py)?::(test_\w+)")
_FILE = re.compile(
  r"\b(?:tests|pcl_jax|preprocessing|configs|benchmarks)/[\w/]+\.py\b"
)


def _names_in(file: str) -> set[str]:
  tree = ast.parse((ROOT / file).read_text())
  return {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}


@pytest.mark.parametrize("doc", DOCS)
def test_links_lead_to_files_and_headings(doc):
  """A heading's anchor is its words in lower case, with hyphens."""
  for link in _LINK.findall((ROOT / doc).read_text()):
    if "://" in link:
      continue
    name, _, anchor = link.partition("#")
    path = (ROOT / doc).parent / name if name else ROOT / doc
    assert path.exists(), link
    if anchor:
      headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
      words = [re.sub(r"[^\w\- ]", "", one.lower()) for one in headings]
      assert anchor in [one.replace(" ", "-") for one in words], link


@pytest.mark.parametrize("doc", DOCS)
def test_modules_that_are_named_exist(doc):
  for file in _FILE.findall((ROOT / doc).read_text()):
    assert (ROOT / file).exists(), file


@pytest.mark.parametrize("doc", DOCS)
def test_tests_that_are_named_exist(doc):
  """`::test_b` after `tests/test_a.py::test_a` is of the same file."""
  for line in (ROOT / doc).read_text().splitlines():
    file = ""
    for named, test in _TEST.findall(line):
      file = named or file
      assert file, f"{doc} names {test} without its file"
      assert (ROOT / file).exists(), file
      assert test in _names_in(file), f"{file}::{test}"


def test_each_of_the_25_faults_has_a_test():
  text = (ROOT / "docs" / "reliability.md").read_text()
  rows = re.findall(r"^\| (\d+) \|(.*)$", text, re.MULTILINE)
  assert [int(number) for number, _ in rows] == list(range(1, 26))
  assert all(_TEST.search(row) for _, row in rows)
