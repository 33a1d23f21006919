"""What a program that XLA has compiled does, read from its text."""

import collections
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import math
import re

_SHAPE = re.compile(r"\b(pred|bf16|f8e\w+|[sufc]\d+)\[([\d,]*)\]")
_ONE_TYPE = r"\((?:[^()]|\([^()]*\))*\)|\S+"
_OPERATION = re.compile(
  rf"^\s*(?:ROOT )?%?([\w.\-]+) = ({_ONE_TYPE}) ([\w\-]+)\((.*)$"
)
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*-> .*\{$")
_CONVOLUTION = re.compile(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)")
# They move nothing and start nothing.
_FREE = frozenset(
  "parameter constant tuple get-tuple-element bitcast after-all partition-id "
  "iota".split()
)
_COLLECTIVES = frozenset(
  "all-reduce all-gather reduce-scatter collective-permute all-to-all".split()
)
_SLICES = ("slice", "dynamic-slice", "gather")
SMALL_BYTES = 3e6  # What an H100 moves in a microsecond.


@dataclasses.dataclass(frozen=True)
class Hardware:
  """The speed of a device, for the model of a program's time."""

  bytes_per_s: float = 3.0e12
  narrow_flops: float = 600e12  # bfloat16.
  wide_flops: float = 300e12  # TensorFloat-32.
  launch_s: float = 2.2e-6


@dataclasses.dataclass(frozen=True)
class Link:
  """How fast devices exchange; an assumption, for the model of the time."""

  start_s: float  # Of one collective, however small.
  bytes_per_s: float  # Of a device, in sums of some 25 MB.


# Eight H100s of a host by NVLink; several hosts, 400 Gbit/s a GPU.
NVLINK, NETWORK = Link(20e-6, 300e9), Link(50e-6, 40e9)


@dataclasses.dataclass(frozen=True)
class Operation:
  """An operation of the program's top level, a launch."""

  name: str
  kind: str  # Opcode, or the target of a custom call.
  shape: str
  source: str  # Where it came from, as the program says.
  times: int
  bytes: int  # Read and written, each time.
  flops: int  # Of a convolution, each time.
  in_bfloat16: bool

  @property
  def traffic(self) -> int:
    """Bytes of all times."""
    return self.times * self.bytes


@dataclasses.dataclass
class Program:
  """All launches of a program, and what makes the host wait."""

  operations: list[Operation] = dataclasses.field(default_factory=list)
  loops: list[tuple[str, int | None]] = dataclasses.field(default_factory=list)
  conditionals: list[str] = dataclasses.field(default_factory=list)
  collectives: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  collective_bytes: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )

  @property
  def bytes(self) -> int:
    """Bytes read and written by all launches."""
    return sum(one.traffic for one in self.operations)

  @property
  def launches(self) -> int:
    """Launches, collectives among them."""
    kernels = sum(one.times for one in self.operations)
    return kernels + self.collectives.total()

  @property
  def small_launches(self) -> int:
    """Launches whose time is that of launching."""
    return sum(
      one.times for one in self.operations if one.traffic < SMALL_BYTES
    )

  @property
  def unknown_loops(self) -> list[str]:
    """Where loops come from whose length the device decides."""
    return [source for source, turns in self.loops if turns is None]

  def seconds(self, hardware: Hardware) -> float:
    """A model: each launch the larger of its bytes and its operations."""
    total = self.small_launches * hardware.launch_s
    for one in self.operations:
      rate = hardware.narrow_flops if one.in_bfloat16 else hardware.wide_flops
      least = max(one.bytes / hardware.bytes_per_s, one.flops / rate)
      total += one.times * least
    return total

  def seconds_of_exchange(self, link: Link) -> float:
    """A model: collectives one after the other, none beside other work.

    A sum passes each device's link twice, all else once.
    """
    passed = self.collective_bytes.total() + self.collective_bytes["all-reduce"]
    return self.collectives.total() * link.start_s + passed / link.bytes_per_s


@dataclasses.dataclass(frozen=True)
class _Line:
  name: str
  type: str
  opcode: str
  rest: str  # Operands and attributes.

  def attribute(self, pattern: str) -> str | None:
    found = re.search(pattern, self.rest)
    return found.group(1) if found else None

  @property
  def operands(self) -> list[str]:
    return re.findall(r"%([\w.\-]+)", self.rest.split("), ")[0])

  @property
  def source(self) -> str:
    return self.attribute(r'op_name="([^"]*)"') or ""


def read(text: str) -> Program:
  """Reads the text of an optimised program (`compiled.as_text()`)."""
  computations, entry = _computations(text)
  program = Program()
  _walk(program, computations, entry, 1)
  return program


def _computations(text: str) -> tuple[dict[str, list[_Line]], str]:
  computations, entry, lines = {}, "", []
  for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
    if head := _HEAD.match(line):
      lines = computations[head.group(2)] = []
      if head.group(1):
        entry = head.group(2)
    elif found := _OPERATION.match(line):
      lines.append(_Line(*found.groups()))
  return computations, entry


def _walk(
  program: Program,
  computations: Mapping[str, Sequence[_Line]],
  name: str,
  times: int,
) -> None:
  lines = computations[name]
  types = {line.name: line.type for line in lines}
  for line in lines:
    kind = line.opcode.removesuffix("-start")
    if line.opcode in _FREE or line.opcode.endswith(("-done", "-update")):
      continue
    if kind in _COLLECTIVES:
      program.collectives[kind] += times
      program.collective_bytes[kind] += times * _bytes(_received(line.type))
    elif kind == "while":
      turns = line.attribute(r"known_trip_count\D+(\d+)")
      program.loops.append((line.source, int(turns) if turns else None))
      body = line.attribute(r"body=%?([\w.\-]+)")
      _walk(program, computations, body, times * int(turns or 1))
    elif kind == "conditional":
      program.conditionals.append(line.source)
      first = line.attribute(r"(?:true_|branch_)computations?=\{?%?([\w.\-]+)")
      _walk(program, computations, first, times)
    elif kind in ("call", "async"):
      called = line.attribute(r"(?:to_apply|calls)=%?([\w.\-]+)")
      _walk(program, computations, called, times)
    else:
      called = line.attribute(r"calls=%?([\w.\-]+)")
      inside = computations.get(called, ()) if kind == "fusion" else ()
      program.operations.append(_operation(line, types, times, inside))


def _operation(
  line: _Line, types: Mapping[str, str], times: int, inside: Sequence[_Line]
) -> Operation:
  operands = [types[name] for name in line.operands if name in types]
  kind = line.opcode
  if kind == "custom-call":
    kind = line.attribute(r'custom_call_target="([^"]*)"') or kind
  flops = _flops(line, operands) if kind.startswith("__cudnn$conv") else 0
  return Operation(
    name=line.name,
    kind=kind,
    shape=line.type,
    source=line.source,
    times=times,
    bytes=_bytes(line.type) + _bytes_read(line, operands, inside),
    flops=flops,
    in_bfloat16="bf16" in line.type,
  )


def _bytes_read(
  line: _Line, operands: Sequence[str], inside: Sequence[_Line]
) -> int:
  """Counts the operands, of which a fusion may read some slices alone."""
  if line.opcode in _SLICES:
    return _bytes(line.type)
  total = 0
  numbers = {
    int(one.rest.split(")")[0]): one.name
    for one in inside
    if one.opcode == "parameter"
  }
  for number, operand in enumerate(operands):
    whole = _bytes(operand)
    read = _bytes_used(numbers[number], inside) if numbers else None
    total += whole if read is None else min(whole, read)
  return total


def _bytes_used(name: str, lines: Sequence[_Line]) -> int | None:
  """Counts what slices take of a value; None where all of it is used."""
  total = 0
  for line in lines:
    if name not in line.operands:
      continue
    if line.opcode in _SLICES and line.operands[0] == name:
      total += _bytes(line.type)
    elif line.opcode in ("bitcast", "convert"):
      part = _bytes_used(line.name, lines)
      if part is None:
        return None
      total += part
    else:
      return None
  return total


def _shapes(type_: str) -> Iterator[tuple[str, list[int]]]:
  for dtype, dims in _SHAPE.findall(type_):
    yield dtype, [int(dim) for dim in dims.split(",") if dim]


def _bytes(type_: str) -> int:
  total = 0
  for dtype, dims in _shapes(type_):
    bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
    total += max(bits // 8, 1) * math.prod(dims)
  return total


def _received(type_: str) -> str:
  """Returns the type of a collective's result.

  One that is started and awaited later has that of its operands before it, in
  parentheses.
  """
  if not type_.startswith("(("):
    return type_
  return type_[type_.index(")") + 1 :]


def _flops(line: _Line, operands: Sequence[str]) -> int:
  """Counts a convolution's operations: two a product."""
  labels = _CONVOLUTION.search(line.rest).groups()
  of_result = next(_shapes(line.type))[1]
  of_operands = [next(_shapes(one))[1] for one in operands]
  # cuDNN's names say which of images and outputs an operand is.
  images, outputs = of_operands[0], of_result
  if "BackwardInput" in line.rest:
    images, outputs = of_result, of_operands[0]
  elif "BackwardFilter" in line.rest:
    outputs = of_operands[1]
  size = line.attribute(r"size=([\dx]+)") or "1"
  taps = math.prod(int(one) for one in size.split("x"))
  return 2 * math.prod(outputs) * taps * images[labels[0].index("f")]
