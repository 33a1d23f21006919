"""Tests of pcl_jax.library.name_keys."""

import unicodedata

from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import pytest

from pcl_jax.library import name_keys


@pytest.mark.parametrize(
  "spellings",
  [
    ("Beyonc\u00e9", "Beyonce\u0301", "BEYONC\u00c9", " beyonc\u00e9 "),
    ("Jay-Z", "jay\u2010z", "Jay\u2011Z", "JAY\u2013Z", "Jay\u2212Z"),
    ("Guns N' Roses", "Guns N\u2019 Roses", "GUNS N` ROSES"),
    ("D'Angelo", "D\u00b4Angelo", "D\u2032angelo", "D\u02bcAngelo"),
    ("Sigur R\u00f3s", "Sigur\u00a0R\u00f3s", "Sigur\u2009Ro\u0301s"),
    ("Adele", "A\u200bdele", "\ufeffAdele", "Ade\u00adle"),
    ("Stra\u00dfe", "STRASSE"),
    ("ABBA", "\uff21\uff22\uff22\uff21"),
    ("AC/DC", "ac\u2044dc", "AC\u2215DC", "AC\uff0fDC"),
    ("I \u2764 U", "I \u2764\ufe0f U"),
    ("IU", "I\u3164U", "IU\u034f"),
    ("A~B", "A\u301cB", "A\uff5eB"),
    ("a b", "a\u2800b", "a  b", "a\tb", "a\u3000b"),
  ],
)  # fmt: skip
def test_spellings_of_one_name_have_one_key(spellings):
  assert len({name_keys.key(one) for one in spellings}) == 1


@pytest.mark.parametrize(
  ("one", "other"),
  [("Beyonce", "Beyonc\u00e9"), ("Jay-Z", "Jay Z"), ("M83", "M 83"), ("a", "")],
)
def test_names_that_differ_in_accents_or_signs_stay_apart(one, other):
  assert name_keys.key(one) != name_keys.key(other)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.text())
def test_a_key_is_its_own_key_and_does_not_depend_on_the_form(text):
  known = name_keys.key(text)
  assert name_keys.key(known) == known
  assert name_keys.key(name_keys.clean(text)) == known
  assert name_keys.clean(name_keys.clean(text)) == name_keys.clean(text)
  for form in ("NFC", "NFD"):
    assert name_keys.key(unicodedata.normalize(form, text)) == known


def test_the_most_frequent_spelling_is_shown():
  names = name_keys.Spellings()
  for name in ("acdc", "ACDC", "AcDc", "ACDC", "Other"):
    names.add(name)
  assert names.shown("acdc") == "ACDC"
  assert names.merged() == {"ACDC": {"ACDC": 2, "acdc": 1, "AcDc": 1}}


def test_bytes_that_are_no_utf_8_are_western_european():
  assert name_keys.clean("Bj\udcf6rk") == "Björk"
  assert name_keys.key("BEYONC\udcc9") == name_keys.key("Beyoncé")
  assert name_keys.key("Beyonc\udce8") != name_keys.key("Beyoncé")
  assert name_keys.clean("A\udca0B\udc81") == "A B\ufffd"
