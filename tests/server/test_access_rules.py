"""Tests of pcl_jax.server.access_rules."""

import pytest

from pcl_jax.common import errors
from pcl_jax.server import access_rules
from tests.support.servers import served

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
  ("url", "status"),
  [
    ("http://127.0.0.1:8000", 200),
    ("http://localhost", 200),
    ("http://LOCALHOST.:1", 200),
    ("http://[::1]:8000", 200),
    ("http://evil.example", 403),
    ("http://127.0.0.1.evil.example", 403),
    ("http://192.168.0.7:8000", 403),
    ("http://music.home", 200),
  ],
)
def test_the_server_answers_to_its_own_names_only(library, url, status):
  with served.asked(library, url=url, hosts=["music.home"]) as client:
    assert client.get("/api/songs").status_code == status


@pytest.mark.parametrize(
  ("headers", "status"),
  [
    ({}, 200),
    ({"origin": served.URL}, 200),
    ({"origin": "http://evil.example"}, 403),
    ({"origin": "http://127.0.0.1:9999"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "http://["}, 403),
    ({"origin": "http://a]b", "host": "127.0.0.1"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"sec-fetch-site": "same-origin"}, 200),
    ({"host": ""}, 403),
    ({"host": "[::1"}, 403),
  ],
)
def test_pages_of_other_sites_may_not_write(client, headers, status):
  body = {"songs": ["4.mp3"]}
  answer = client.post("/api/playlist", json=body, headers=headers)
  assert answer.status_code == status
  assert "access-control-allow-origin" not in answer.headers


def test_with_a_token_every_request_needs_it(library):
  with served.asked(library, url="http://any.name", token=TOKEN) as client:
    for headers in (
      {},
      {"authorization": "Bearer wrong"},
      {"authorization": f"Basic {TOKEN}"},
      {"cookie": f"{access_rules.COOKIE}=wrong"},
      {"authorization": "Bearer \u00e9".encode("latin-1")},
    ):
      for path in ("/", "/api/songs", "/api/audio?id=4.mp3", "/nix"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401 and "token" in answer.json()["error"]
    good = {"authorization": f"Bearer {TOKEN}"}
    assert client.get("/api/songs", headers=good).status_code == 200


def test_an_address_with_the_token_signs_the_browser_in(library):
  with served.asked(library, url="http://any.name", token=TOKEN) as client:
    answer = client.get(f"/api/songs?q=1&token={TOKEN}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/api/songs?q=1"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert client.get("/api/songs?q=1").status_code == 200
    wrong = client.get("/api/songs?token=wrong", headers={"cookie": ""})
    assert wrong.status_code == 401


def test_the_address_after_signing_in_is_never_of_another_site(library):
  with served.asked(library, token=TOKEN) as client:
    answer = client.get(f"//evil.example/?token={TOKEN}")
    assert not answer.headers["location"].startswith("//")


def test_other_machines_need_a_token():
  for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1"):
    access_rules.check(host, "")
  for host in ("0.0.0.0", "::", "192.168.0.7", "my.name", ""):
    with pytest.raises(errors.InputError, match="PCL_JAX_TOKEN"):
      access_rules.check(host, "")
    access_rules.check(host, TOKEN)
  for token in ("short", "eight\ncharacters", "caf\u00e9 caf\u00e9"):
    with pytest.raises(errors.InputError, match="8 printable"):
      access_rules.check("0.0.0.0", token)
