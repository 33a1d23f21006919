"""Charts of a page, as specifications of Vega-Lite.

A specification is a dictionary that json can hold. Curves and the map name
their data, which the page has once (`history`, `songs`); the others hold their
few rows themselves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
HISTORY, SONGS = "history", "songs"
BY = ("sub-genre", "artist", "split", "playlist")  # What colours the map.
# Colours that people of any colour vision tell apart (Okabe and Ito), with
# yellow, which is faint on white, darkened; more follow for long lists.
PALETTE = [
  "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9",
  "#5b3794", "#a6761d", "#333333", "#1b7837",
]  # fmt: skip
REST = "all others"  # The group of songs that have no colour of their own.
# Colours of the curves of one run.
KINDS = {"train": PALETTE[0], "validation": PALETTE[1]}
GREY = "#8c8c8c"  # Of these.
_INK = "#222222"
_MANY_SONGS = 2000  # From here on, the dots of the map are smaller.
_CONFIG = {
  "font": "system-ui, sans-serif",
  "background": "#ffffff",
  "view": {"stroke": None},
  "axis": {
    "labelColor": _INK, "titleColor": _INK, "labelFontSize": 12,
    "titleFontSize": 12, "titleFontWeight": "normal", "gridColor": "#e6e6e6",
    "labelLimit": 210,
  },
  "legend": {
    "labelColor": _INK, "titleColor": _INK, "labelFontSize": 12,
    "titleFontSize": 12, "orient": "bottom", "columns": 3, "labelLimit": 230,
  },
}  # fmt: skip


def _spec(description: str, **parts: Any) -> Spec:
  """Returns a chart as wide as its place, described for who cannot see it."""
  return {
    "description": description,
    "width": "container",
    "config": _CONFIG,
    **parts,
  }


def curve(field: str, title: str, *, runs: Sequence[str], share: bool) -> Spec:
  """Returns the curve of a number over the steps of runs.

  Args:
    field: its name in the data `history`.
    title: what people call it.
    runs: names of the runs.
    share: whether it is a share of 1, shown in percent.
  """
  several = len(runs) > 1
  kind = {"domain": list(KINDS), "range": [[1, 0], [5, 3]]}
  colour: Spec = {
    "field": "kind",
    "scale": {"domain": list(KINDS), "range": list(KINDS.values())},
    "legend": None,
  }
  if several:
    scale = {"domain": list(runs), "range": PALETTE}
    colour = {"field": "run", "scale": scale, "title": None}
  y: Spec = {"field": field, "type": "quantitative", "title": None}
  y["scale"] = {"zero": share}
  y["axis"] = {"format": ".0%"} if share else {}
  tips = [
    {"field": "step", "type": "quantitative"},
    {"field": field, "type": "quantitative", "title": title, "format": ".4~g"},
    {"field": "kind"},
    *([{"field": "run"}] if several else []),
  ]
  return _spec(
    f"Curve of {title} over the steps of training.",
    height=150,
    data={"name": HISTORY},
    transform=[{"filter": f"isValid(datum['{field}'])"}],
    mark={"type": "line", "point": {"size": 14}, "strokeWidth": 1.8},
    encoding={
      "x": {"field": "step", "type": "quantitative", "title": "step"},
      "y": y,
      "color": colour,
      "strokeDash": {"field": "kind", "scale": kind, "legend": None},
      "tooltip": tips,
    },
  )


def intervals(title: str, rows: Sequence[Mapping[str, Any]]) -> Spec:
  """Returns values with their 95 % intervals, as dots with whiskers.

  Args:
    title: the metric.
    rows: `name`, `value`, and `low` and `high`, which may be None.
  """
  names = [row["name"] for row in rows]
  y = {
    "field": "name", "type": "nominal", "title": None, "sort": names,
    "axis": {"labelLimit": 170, "grid": True},
  }  # fmt: skip
  said = "; ".join(f"{row['name']} {row['text']}" for row in rows)
  colour = {
    "field": "name",
    "scale": {"domain": names, "range": [PALETTE[0]] + [GREY] * len(names)},
    "legend": None,
  }
  return _spec(
    f"{title}: {said}.",
    height=24 * len(rows),
    data={"values": [dict(row) for row in rows]},
    encoding={"y": y, "color": colour, "tooltip": _told(title)},
    layer=[*_whiskers(title, rows), _dots(title)],
  )


def _told(title: str) -> list[Spec]:
  return [
    {"field": "name", "title": "of"},
    {"field": "text", "title": title},
  ]


def _whiskers(title: str, rows: Sequence[Mapping[str, Any]]) -> list[Spec]:
  """Returns the layer of intervals; none where no row has one."""
  if not any(isinstance(row["low"], float) for row in rows):
    return []
  layer = {
    "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
    "mark": {"type": "rule", "strokeWidth": 2},
    "encoding": {
      "x": {"field": "low", "type": "quantitative", "title": title},
      "x2": {"field": "high"},
    },
  }
  return [layer]


def _dots(title: str) -> Spec:
  scale = {"zero": True, "nice": True}
  return {
    "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
    "encoding": {
      "x": {
        "field": "value",
        "type": "quantitative",
        "scale": scale,
        "title": title,
        "axis": {"tickCount": 5},
      }
    },
  }


def differences(rows: Sequence[Mapping[str, Any]], first: str) -> Spec:
  """Returns differences of runs from the first one, with a line at zero.

  Args:
    rows: `name` of the task and metric, `run`, `value`, `low`, `high`, `text`.
    first: name of the first run.
  """
  runs = list(dict.fromkeys(row["run"] for row in rows))
  title = f"difference from {first}"
  said = "; ".join(f"{r['run']}, {r['name']}: {r['text']}" for r in rows)
  return _spec(
    f"Differences in each metric, with 95 % intervals. {said}.",
    height=(12 + 10 * len(runs)) * len({row["name"] for row in rows}),
    data={"values": [dict(row) for row in rows]},
    encoding={
      "y": {
        "field": "name", "type": "nominal", "title": None, "sort": None,
        "axis": {"grid": True, "labelLimit": 300},
      },
      "yOffset": {"field": "run", "sort": runs},
      "color": {
        "field": "run", "title": "run",
        "scale": {"domain": runs, "range": PALETTE},
        "legend": {} if len(runs) > 1 else None,
      },
      "tooltip": [{"field": "run"}, *_told("difference")],
    },
    layer=[
      {
        "mark": {
          "type": "rule", "color": _INK, "strokeDash": [3, 3], "aria": False,
        },
        "encoding": {
          "x": {"datum": 0}, "y": None, "yOffset": None,
          "color": {"value": _INK}, "tooltip": None,
        },
      },
      *_whiskers(title, rows),
      _dots(title),
    ],
  )  # fmt: skip


def confusion(names: Sequence[str], matrix: Sequence[Sequence[float]]) -> Spec:
  """Returns shares of sub-genres among the neighbours of sub-genres.

  Args:
    names: of the sub-genres.
    matrix: shares, [query, neighbour].
  """
  rows = [
    {"query": query, "near": near, "share": round(share, 4)}
    for query, shares in zip(names, matrix, strict=True)
    for near, share in zip(names, shares, strict=True)
  ]
  axis = {"type": "nominal", "sort": list(names)}
  tilted = {"axis": {"labelAngle": -35, "orient": "top"}}
  most = max((row["share"] for row in rows), default=1)
  return _spec(
    "Shares of sub-genres among the five nearest songs of each sub-genre; the "
    "table below has the same numbers.",
    height=26 * len(names),
    data={"values": rows},
    encoding={
      "y": {"field": "query", "title": "song", **axis},
      "x": {"field": "near", "title": "its nearest songs", **axis, **tilted},
      "tooltip": [
        {"field": "query", "title": "song"},
        {"field": "near", "title": "nearest songs"},
        {"field": "share", "type": "quantitative", "format": ".1%"},
      ],
    },
    layer=_shaded_and_written(most),
  )


def _shaded_and_written(most: float) -> list[Spec]:
  """Returns the layers of the confusion; `most` is the largest share."""
  share: Spec = {"field": "share", "type": "quantitative"}
  scale = {"scheme": "blues", "domain": [0, most]}
  is_dark = {"test": f"datum.share > {most * 0.55}", "value": "#ffffff"}
  return [
    {
      "mark": "rect",
      "encoding": {"color": {**share, "legend": None, "scale": scale}},
    },
    {
      "transform": [{"filter": "datum.share >= 0.005"}],
      "mark": {"type": "text", "fontSize": 11},
      "encoding": {
        "text": {**share, "format": ".0%"},
        "color": {"condition": is_dark, "value": _INK},
      },
    },
  ]


def song_map(songs: int, method: str, by: Sequence[str] = BY) -> Spec:
  """Returns the map of songs, whose data the page fills in.

  The page also sets the field and the scale of the colours, and the parameters:
  `chosen` is the song that was clicked, `near` are its nearest songs, `sought`
  are letters that the words about a song must contain.

  Args:
    songs: how many songs there are.
    method: how they were placed.
    by: what may colour them.
  """
  tips = [{"field": "name", "title": "song"}, *({"field": one} for one in by)]
  scale = {"domain": [-1.05, 1.05], "nice": False}
  place = {
    axis: {"field": axis, "type": "quantitative", "axis": None, "scale": scale}
    for axis in ("x", "y")
  }
  small, near, chosen = (
    (22, 70, 170) if songs >= _MANY_SONGS else (52, 110, 240)
  )

  def marked(others: Any, of_near: Any, of_chosen: Any) -> Spec:
    """Returns what tells the chosen song and its neighbours from others."""
    return {
      "condition": [
        {"test": "datum.i === chosen", "value": of_chosen},
        {"test": "indexof(near, datum.i) >= 0", "value": of_near},
      ],
      "value": others,
    }

  opacity = marked(0.06, 1, 1)
  found = "sought === '' || indexof(datum.words, sought) >= 0"
  opacity["condition"].append({"test": found, "value": 0.85})
  zoom = {"type": "interval", "zoom": "wheel![event.shiftKey]"}
  return _spec(
    f"Map of {songs} songs by {method}: songs near each other sound alike to "
    "the encoder. The field above finds a song by its name and lists its "
    "nearest songs.",
    height=460,
    data={"name": SONGS},
    params=[
      {"name": "chosen", "value": -1},
      {"name": "near", "value": []},
      {"name": "sought", "value": ""},
      {"name": "zoom", "select": zoom, "bind": "scales"},
    ],
    mark={"type": "point", "filled": True},
    encoding={
      **place,
      "tooltip": tips,
      "color": {"type": "nominal", "title": None},
      "stroke": marked("#ffffff", _INK, _INK),
      "strokeWidth": marked(0.4, 2, 4),
      "size": marked(small, near, chosen),
      "opacity": opacity,
      "order": marked(0, 1, 2),
    },
  )
