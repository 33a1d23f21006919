"""Tests of pcl_jax.server.web_pages."""

import re

import pytest

from pcl_jax.server import web_pages


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  """The library that draws the map takes seconds to be made."""
  monkeypatch.setattr(web_pages, "_vega", lambda: "vegaEmbed")
  web_pages._content.cache_clear()
  yield
  web_pages._content.cache_clear()


def test_pages_load_what_is_there_and_nothing_from_elsewhere(client):
  for page in ("/", "/api/docs"):
    answer = client.get(page)
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    links = re.findall(r'(?:src|href)="([^"#]+)"', answer.text)
    links = [one for one in links if one != "data:,"]
    assert len(links) > 3 and not any("//" in one for one in links)
    assert "<script>" not in answer.text and "onclick" not in answer.text
    for link in links:
      found = client.get(str(client.base_url.copy_with(path=page).join(link)))
      assert found.status_code == 200, link


def test_a_file_that_has_not_changed_is_not_sent_again(client):
  first = client.get("/static/library.js")
  again = client.get(
    "/static/library.js", headers={"if-none-match": first.headers["etag"]}
  )
  assert again.status_code == 304 and not again.content


@pytest.mark.parametrize(
  "path", ["/static/", "/static/../served_library.py", "/static/%2e%2e/x.py"]
)
def test_no_other_file_is_sent(client, path):
  assert client.get(path).status_code == 404
