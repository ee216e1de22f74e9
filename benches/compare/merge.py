"""Puts the figures of normact and of the peers side by side, as one Markdown table for each shape.

Reads the JSON of `normact bench ... --json` and of `peers.py --json`, any number of files of either kind.
A cell is the median time of a training step in milliseconds (forward and backward) and, in brackets, how
many times that of normact's fused layer it is: above 1, the fused layer is faster. What was not measured
is a dash.

Usage: python merge.py [--normact FILE]... [--peers FILE]... [--output FILE]
"""

import argparse
import json
import os
import platform
import sys
from typing import Any

Shape = tuple[int, ...]
# Milliseconds by shape, layer and column.
Times = dict[Shape, dict[str, dict[str, float]]]

FUSED = "normact fused"
COLUMNS = [FUSED, "normact op by op", "Burn's module", "PyTorch eager", "torch.compile", "JAX jit"]
NORMACT_KEYS = {"fused": FUSED, "op_by_op": "normact op by op", "burn": "Burn's module"}
PEER_COLUMNS = {"torch": "PyTorch eager", "torch.compile": "torch.compile", "jax": "JAX jit"}


def read_objects(path: str) -> list[dict[str, Any]]:
    """The JSON objects of a file: a list of them, one, or several one after the other."""
    try:
        with open(path) as file:
            text = file.read()
    except OSError as error:
        sys.exit(f"merge.py: cannot read {path}: {error.strerror}")
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    position = 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            sys.exit(f"merge.py: {path} is not JSON: {error}")
        found += value if isinstance(value, list) else [value]
    return found


def record(times: Times, shape: list[int], layer: str, column: str, milliseconds: float) -> None:
    times.setdefault(tuple(shape), {}).setdefault(layer, {})[column] = milliseconds


def add_normact(times: Times, objects: list[dict[str, Any]]) -> None:
    for measured in objects:
        for layer in measured["layers"]:
            for key, column in NORMACT_KEYS.items():
                if layer.get(key) is not None:
                    record(times, measured["shape"], layer["layer"], column, layer[key]["forward_backward_ms"])


def add_peers(times: Times, objects: list[dict[str, Any]]) -> None:
    for measured in objects:
        column = PEER_COLUMNS[measured["peer"]]
        record(times, measured["shape"], measured["layer"], column, measured["forward_backward_ms"])


def cell(row: dict[str, float], column: str) -> str:
    """Milliseconds with three significant digits, and the ratio to the fused layer."""
    if column not in row:
        return "-"
    time = row[column]
    digits = 0 if time >= 100 else 1 if time >= 10 else 2 if time >= 1 else 3
    ratio = f" ({time / row[FUSED]:.2f})" if FUSED in row and column != FUSED else ""
    return f"{time:.{digits}f}{ratio}"


def table(shape: Shape, rows: dict[str, dict[str, float]]) -> str:
    lines = [f"### {'x'.join(map(str, shape))}", ""]
    lines.append(f"| layer | {' | '.join(COLUMNS)} |")
    lines.append(f"| --- |{' ---: |' * len(COLUMNS)}")
    for layer, row in rows.items():
        lines.append(f"| {layer} | {' | '.join(cell(row, column) for column in COLUMNS)} |")
    return "\n".join(lines) + "\n"


def processor() -> str:
    """The name of the processor, as Linux tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def system() -> str:
    """The operating system, by its distribution's name where it has one."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)
    return f"{name}, {platform.system()} {platform.release().split('-')[0]}"


def machine_line(peers: list[dict[str, Any]]) -> str:
    """Where this was measured, and with which versions of what."""
    packages: dict[str, str] = {}
    for measured in peers:
        packages |= measured["versions"]
    known = ", ".join(f"{name} {number}" for name, number in sorted(packages.items()))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}, {cores} cores, {system()}" + (f"; {known}" if known else "") + "."


def report(normact: list[dict[str, Any]], peers: list[dict[str, Any]]) -> str:
    times: Times = {}
    add_normact(times, normact)
    add_peers(times, peers)
    if not times:
        sys.exit("merge.py: there is nothing to show: no file has any figures")
    head = "Forward and backward in training mode, milliseconds (median); in brackets, times normact's fused layer.\n"
    return "\n".join([head, *(table(shape, rows) for shape, rows in times.items()), machine_line(peers)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Puts the figures of normact and the peers in one table.")
    parser.add_argument("--normact", action="append", default=[], metavar="FILE", help="JSON of normact bench")
    parser.add_argument("--peers", action="append", default=[], metavar="FILE", help="JSON of peers.py")
    parser.add_argument("--output", metavar="FILE", help="write the tables there as well")
    options = parser.parse_args()
    try:
        text = report(
            [found for path in options.normact for found in read_objects(path)],
            [found for path in options.peers for found in read_objects(path)],
        )
    except (KeyError, TypeError) as error:
        sys.exit(f"merge.py: a file does not have the expected form: {error} is missing or of another kind")
    print(text)
    if options.output:
        with open(options.output, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
