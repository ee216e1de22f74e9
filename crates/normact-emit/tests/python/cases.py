"""Cases as the test in Rust writes them: numbers, and the error that each may have."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np


def numbers(text: str) -> np.ndarray:
    """A list of float64 from the hexadecimal digits of its bytes."""
    return np.frombuffer(bytes.fromhex(text), np.float64)


def load(folder: Path) -> list[dict]:
    """The cases of a folder, with arrays in place of text."""
    cases = json.loads((folder / "cases.json").read_text())
    for case in cases:
        for part in ("params", "state"):
            case[part] = {name: numbers(text) for name, text in case[part].items()}
        for step in case["steps"]:
            for part in ("x", "dy"):
                step[part] = numbers(step[part]).reshape(case["shape"])
            step["expected"] = {name: tuple(map(numbers, texts)) for name, texts in step["expected"].items()}
    return cases


def load_module(folder: Path, name: str) -> ModuleType:
    """An emitted file."""
    spec = importlib.util.spec_from_file_location(f"emitted_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tally:
    """Compares lists of numbers, and keeps what was worst."""

    def __init__(self) -> None:
        self.compared = 0
        self.left_out = 0
        self.worst = 0.0
        self.worst_at = "nothing"
        self.failures: list[str] = []

    def compare(self, place: str, found, expected: np.ndarray, allowed: np.ndarray) -> None:
        """Each number against what is expected, with the error it may have: infinite if nothing is known."""
        found = np.asarray(found, np.float64).reshape(-1)
        if found.shape != expected.shape:
            self.failures.append(f"{place}: {found.size} numbers, expected {expected.size}")
            return
        known = np.isfinite(allowed)
        finite = known & np.isfinite(expected)
        self.compared += int(finite.sum())
        self.left_out += int((~known).sum())
        with np.errstate(invalid="ignore"):
            difference = np.abs(found - expected)
        wrong = finite & ~(difference <= allowed)
        # Infinite, or no number: so it has to be here.
        wrong |= known & ~np.isfinite(expected) & np.isfinite(found)
        for index in np.flatnonzero(wrong)[:2]:
            numbers = f"{found[index]!r}, expected {expected[index]!r} within {allowed[index]:.1e}"
            self.failures.append(f"{place}[{index}] is {numbers}")
        largest = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))
        steady = finite & ~wrong & (allowed <= 1e-9 * largest)
        worst = float(difference[steady].max(initial=0.0)) / largest
        if worst > self.worst:
            self.worst, self.worst_at = worst, place

    def finish(self, library: str) -> None:
        """Says how it went, and ends the program."""
        print(f"{library}: {self.compared} numbers compared, {self.left_out} left out as unsteady")
        print(f"{library}: largest difference {self.worst:.1e} of the largest of its list, in {self.worst_at}")
        for failure in self.failures[:20]:
            print("WRONG:", failure)
        raise SystemExit(f"{len(self.failures)} failures" if self.failures else 0)


def require(condition: bool, message: str) -> None:
    """Ends the program with a message unless the condition holds."""
    if not condition:
        raise SystemExit(f"WRONG: {message}")
