"""What a trace says: the busiest kernels, and how busy the device was."""

import collections
from collections.abc import Iterator
import gzip
import json
import pathlib
import re
import shutil
from typing import Any

from benchmarks.accelerator import part_context

_SHOWN = 30
_LARGEST_KEPT = 12 << 20
_GAP_US = 50.0


def _device_events(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
  """Yields what ran on devices, or everything where there are none."""
  names, threads = {}, {}
  for one in events:
    if one.get("name") == "process_name":
      names[one["pid"]] = one["args"]["name"]
    if one.get("name") == "thread_name":
      threads[one["pid"], one["tid"]] = one["args"]["name"]
  devices = {p for p, name in names.items() if "GPU" in name or "TPU" in name}
  for one in events:
    if one.get("ph") != "X" or (devices and one["pid"] not in devices):
      continue
    thread = threads.get((one["pid"], one["tid"]), "")
    if devices and "GPU" in names[one["pid"]] and "Stream" not in thread:
      continue
    yield one


def busy_us(
  spans: list[tuple[float, float]],
) -> tuple[float, list[float]]:
  """Joins spans of time that overlap.

  Args:
    spans: begin and end of each.

  Returns:
    The time in which one of them at least was under way, and the gaps.
  """
  busy, end, gaps = 0.0, None, []
  for first, last in sorted(spans):
    if end is None or first > end:
      if end is not None:
        gaps.append(first - end)
      busy, end = busy + last - first, last
    elif last > end:
      busy, end = busy + last - end, last
  return busy, gaps


def record(
  context: part_context.Context, profile: pathlib.Path, name: str
) -> None:
  """Records what a run's trace says; prints its busiest kernels; keeps it.

  Args:
    context: of the part.
    profile: the folder `profile` of the run.
    name: of what was traced.
  """
  files = sorted(profile.glob("**/*.trace.json.gz"))
  if not files:
    context.record(f"{name}, trace", error=f"there is none in {profile}")
    return
  with gzip.open(files[-1]) as file:
    events = list(_device_events(json.load(file)["traceEvents"]))
  spans = [(e["ts"], e["ts"] + e.get("dur", 0)) for e in events]
  busy, gaps = busy_us(spans)
  whole = max((last for _, last in spans), default=0.0)
  whole -= min((first for first, _ in spans), default=0.0)
  context.record(
    f"{name}, trace",
    busy_share=busy / max(whole, 1.0),
    device_ms=whole / 1e3,
    launches=len(events),
    gaps_over_50_us=sum(gap > _GAP_US for gap in gaps),
    longest_gap_us=max(gaps, default=0.0),
  )
  total, count = collections.Counter(), collections.Counter()
  for one in events:
    operation = (one.get("args") or {}).get("hlo_op", "")
    key = f"{one['name'][:60]} <{operation[:40]}>"
    total[key] += one.get("dur", 0)
    count[key] += 1
  for key, us in total.most_common(_SHOWN):
    share = us / max(busy, 1.0)
    print(f"  {us / 1e3:9.3f} ms {share:6.1%} {count[key]:6d} x {key}")
  if files[-1].stat().st_size < _LARGEST_KEPT:
    kept = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    shutil.copy(files[-1], context.out / f"{kept}.trace.json.gz")
