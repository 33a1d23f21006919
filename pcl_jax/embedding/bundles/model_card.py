"""The model card of a bundle: README.md with a header for model hubs.

The header is YAML, of which json is a part, so no library writes it.
"""

from collections.abc import Iterator
import json
import pathlib
import re
from typing import Any

from pcl_jax.audio import channel_mix
from pcl_jax.common import errors
from pcl_jax.common import storage

NO_LICENSE = "other"
_METRICS = 5  # Of each task.
_TAGS = ("audio", "music", "audio-embeddings", "contrastive-learning")
JAX, PYTORCH = "jax", "pytorch"
# The library's name on model hubs, and how the folder is loaded.
FRAMEWORKS = {
  JAX: (
    "pcl_jax",
    "import pcl_jax\n"
    'vector = pcl_jax.load("FOLDER or hf://USER/NAME").embed("song.mp3")\n',
  ),
  PYTORCH: (
    "pytorch",
    "# pip install torch numpy soxr\nimport sys\n"
    'sys.path.append("FOLDER")\n'
    "from modeling_pcl import PclEncoder\n"
    'encoder = PclEncoder.from_pretrained("FOLDER")\n'
    "vector = encoder.embed(samples, sample_rate)\n",
  ),
}


def check_license(license: str) -> None:
  """Raises InputError where a licence is not written as hubs write it."""
  if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", license):
    raise errors.InputError(
      f"the licence {license!r} is no identifier as model hubs have it: give "
      f"one such as mit or cc-by-nc-4.0, or {NO_LICENSE} if it is not decided."
    )


def read_evaluation(
  folder: pathlib.Path, digest: str
) -> tuple[dict[str, Any] | None, str]:
  """Reads the results of an encoder's evaluation, as far as a card has them.

  Args:
    folder: of the run, or of a bundle, which has results.json.
    digest: SHA-256 of the encoder's weights.

  Returns:
    The data set's songs and fingerprint, and a row for each metric; or None,
    and why there is nothing.
  """
  path = folder / "results.json"
  if not path.is_file():
    return None, f"{path} does not exist"
  try:
    results = storage.read_json(path)
    certificate = results["certificate"]
    if certificate["checkpoint"]["encoder_sha256"] != digest:
      return None, f"{path} is of other weights than these"
    # A run's fingerprint covers other files than an evaluation's.
    learned = certificate.get("trained_on") or {}
    source = learned if learned.get("same_data") else results
    found = {
      "songs": results["songs"],
      "fingerprint": source["fingerprint"],
      "metrics": list(_rows(results)),
    }
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    return None, f"{path} cannot be read ({error!r})"
  return found, ""


def _rows(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
  trained = results["trained"]
  for what, one in results["precision_at_5"].get(trained, {}).items():
    yield _row(
      f"same {what}", "precision_at_5", one | {"items": one["queries"]}
    )
  for task, rows in results["tasks"].items():
    metrics = rows.get(trained, {}).get("metrics", {})
    for name, one in list(metrics.items())[:_METRICS]:
      yield _row(task, name, one | {"value": one["value"]})


def _row(task: str, name: str, one: dict[str, Any]) -> dict[str, Any]:
  return {
    "task": task,
    "metric": name,
    "value": one.get("value", one.get(name)),
    "interval_95": one["interval_95"],
    "items": one["items"],
  }


def _header(
  config: dict[str, Any], license: str, name: str, framework: str
) -> str:
  """Returns the lines between the dashes."""
  header: dict[str, Any] = {"license": license}
  if license == NO_LICENSE:
    header["license_name"] = "not-decided"
  header |= {
    "library_name": FRAMEWORKS[framework][0],
    "pipeline_tag": "feature-extraction",
    "tags": [*_TAGS, framework, config["architecture"]["backbone_type"]],
  }
  evaluation = config["origin"]["evaluation"]
  if evaluation:
    data = f"{evaluation['songs']} songs, {evaluation['fingerprint'][:12]}"
    tasks: dict[str, list] = {}
    for one in evaluation["metrics"]:
      if one["value"] is not None:
        tasks.setdefault(one["task"], []).append(
          {
            "type": one["metric"],
            "value": one["value"],
            "name": one["metric"].replace("_", " "),
            "args": {"interval_95": one["interval_95"], "items": one["items"]},
          }
        )
    results = [
      {
        "task": {"type": "feature-extraction", "name": task},
        "dataset": {"type": "pcl_jax", "name": data},
        "metrics": metrics,
      }
      for task, metrics in tasks.items()
    ]
    if results:
      header["model-index"] = [{"name": name, "results": results}]
  return "\n".join(
    f"{key}: {json.dumps(value, ensure_ascii=False)}"
    for key, value in header.items()
  )


def _results(config: dict[str, Any]) -> list[str]:
  evaluation = config["origin"]["evaluation"]
  if not evaluation:
    return ["It was not evaluated when it was exported."]
  lines = [
    f"In a data set of {evaluation['songs']} songs "
    f"(`{evaluation['fingerprint'][:12]}`), with 95 % bootstrap intervals over "
    "the items, which are the songs that were looked up:",
    "",
    "| task | metric | value | interval | items |",
    "|---|---|---|---|---|",
  ]
  for one in evaluation["metrics"]:
    if one["value"] is not None:
      low, high = one["interval_95"]
      interval = "" if low is None else f"{low:.3f} to {high:.3f}"
      cells = [one["task"], one["metric"], f"{one['value']:.3f}", interval]
      lines.append(f"| {' | '.join(cells)} | {one['items']} |")
  return lines


def make(
  config: dict[str, Any], license: str, name: str, framework: str = JAX
) -> str:
  """Returns the text of README.md.

  Args:
    config: what `bundle_config.of` gives.
    license: identifier of the weights' licence.
    name: of the model.
    framework: a key of `FRAMEWORKS`.
  """
  built, layers = config["architecture"], config["layers"]
  origin, data = config["origin"], config["origin"]["data"]
  songs = f"the training songs among {data.get('songs')}"
  mark = data.get("fingerprint")
  fingerprint = f" (data set `{mark[:12]}`)" if mark else ""
  training = f"Strategy {origin['strategy']}, step {origin['step']}, on {songs}"
  training += f"{fingerprint}."
  if begun := origin.get("init_from"):
    digest = str(begun.get("weights_sha256"))[:12]
    training += (
      f" It began with the weights `{digest}` of `{begun.get('name')}`."
    )
  if not mark:
    training = "That is not on record: the weights were imported."
  terms = f"The licence of the weights is `{license}`."
  if license == NO_LICENSE:
    terms = (
      "It was not decided under which licence the weights may be used: "
      "ask who published them."
    )
  lines = [
    f"---\n{_header(config, license, name, framework)}\n---\n",
    f"# {name}\n",
    "This encoder turns a music recording into a vector of "
    f"{layers['features']} numbers (or {layers['projection']}, with "
    '`layer="projection"`). It was trained by contrastive learning with '
    "`pcl_jax`.\n",
    f"```python\n{FRAMEWORKS[framework][1]}```\n",
    "Loading computes the embedding of `golden.npz`, and refuses weights or "
    "software that give another one.\n",
    "## What it was trained on\n",
    f"{training} The network is `{built['backbone_type']}` of width "
    f"{built['width']}.\n",
    "## Input\n",
    f"Mono audio at {config['sample_rate_hz']} Hz (of several channels, "
    f"{channel_mix.in_words(config['feature'])}); "
    f"{config['patch']['mel_bands']} mel bands; patches of "
    f"{config['patch']['seconds']:g} s, whose mean is the song's vector. "
    "`config.json` has every setting.\n",
    "## Results\n",
    *_results(config),
    "\n## Licence\n",
    f"{terms} The software has a licence of its own (MIT).",
  ]
  return "\n".join(lines) + "\n"
