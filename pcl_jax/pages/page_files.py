"""Pages that open from the disk: one file, with charts by Vega-Lite in it."""

import json
import pathlib
from typing import Any

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.pages import chart_specs

MOST_BYTES = 5_000_000  # Larger pages have their data in files beside them.
_TEMPLATES = pathlib.Path(__file__).parent / "templates"
SONG_MAP = "song_map.js"  # What pages with a map have in common.
_BESIDE = "_files"  # End of the name of the folder of these files.


def text_of(name: str) -> str:
  """Returns a file of the templates."""
  return (_TEMPLATES / name).read_text("utf-8")


class Page:
  """A template, its charts and its data."""

  def __init__(self, name: str):
    """Takes the files NAME.html.j2, NAME.css and NAME.js for templates.

    Raises:
      InputError: the packages of the extra `report` are not installed.
    """
    try:
      import jinja2
      import vl_convert
    except ModuleNotFoundError as error:
      raise errors.InputError(
        f"a page needs the package {error.name}, which the base install leaves "
        'out. Install it with pip install "pcl_jax[report]".'
      ) from error
    self._environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(_TEMPLATES),
      autoescape=True,
      trim_blocks=True,
      lstrip_blocks=True,
      undefined=jinja2.StrictUndefined,
    )
    self._environment.filters["chart"] = self._add_chart
    self._template = self._environment.get_template(f"{name}.html.j2")
    self._parts = {
      "library": vl_convert.javascript_bundle(),
      "css": text_of(f"{name}.css"),
      "js": text_of(SONG_MAP) + text_of(f"{name}.js"),
    }
    self._charts: dict[str, chart_specs.Spec] = {}
    self.data: dict[str, Any] = {}  # What the page's script reads, by name.

  def _add_chart(self, spec: chart_specs.Spec) -> str:
    """Keeps a chart for the script; returns its name on the page."""
    name = f"chart{len(self._charts)}"
    self._charts[name] = spec
    return name

  def _render(self, context: dict[str, Any], beside: dict[str, str]) -> bytes:
    """Returns the page, with the scripts that are not in files beside it."""
    self._charts = {}

    def scripts() -> list[str]:  # At the end, when all charts are known.
      return [
        _script(name, value)
        for name, value in (self.data | {"charts": self._charts}).items()
        if name not in beside
      ]

    text = self._template.render(
      context, scripts=scripts, beside=list(beside.values()), **self._parts
    )
    # A name that is no text was escaped for json; what is left is in no script.
    return text.encode("utf-8", "backslashreplace")

  def write(
    self, path: pathlib.Path, context: dict[str, Any]
  ) -> list[pathlib.Path]:
    """Writes the page.

    Where it would be larger than `MOST_BYTES`, its largest data go into files
    of a folder beside it.

    Args:
      path: the page's file.
      context: what the template reads.

    Returns:
      The files, the page first.
    """
    folder = path.with_name(path.stem + _BESIDE)
    beside: dict[str, str] = {}
    content = self._render(context, beside)
    scripts = {name: _script(name, data) for name, data in self.data.items()}
    paths = []
    for name in sorted(scripts, key=lambda one: -len(scripts[one])):
      if len(content) <= MOST_BYTES:
        break
      folder.mkdir(parents=True, exist_ok=True)
      beside[name] = f"{folder.name}/{name}.js"
      paths.append(folder / f"{name}.js")
      _write(paths[-1], scripts[name].encode("utf-8", "backslashreplace"))
      content = self._render(context, beside)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, content)
    return [path, *paths]


def _write(path: pathlib.Path, content: bytes) -> None:
  with storage.write_aside(path) as partial:
    partial.write_bytes(content)


def _script(name: str, value: Any) -> str:
  text = json.dumps(
    value, ensure_ascii=False, allow_nan=False, separators=(",", ":")
  )
  # No text may end the script element, or begin a comment of HTML in it.
  for character in "<>&\u2028\u2029":
    text = text.replace(character, f"\\u{ord(character):04x}")
  return f'pcl_data["{name}"]={text};'
