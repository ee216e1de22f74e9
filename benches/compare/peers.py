"""Measures what people use today in place of normact: PyTorch, torch.compile and JAX, on the CPU.

For every peer, layer and shape it reports the time of a forward pass and of a training step (forward, then
the gradients of the input and of all parameters), the memory that a step takes and, for PyTorch, how much
is kept for the backward pass. Each is measured in a process of its own, so that one cannot warm up, slow
down or fill the memory of the next. All layers run in training mode, in 32-bit floats, on the same seeded
random numbers; `--check` shows that all peers compute the same function and gradients.

Usage: python peers.py [--shape 32,128,56,56]... [--layers a,b] [--peers a,b] [--runs 20] [--json FILE]
       python peers.py --check
"""

import argparse
import gc
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

Shape = tuple[int, int, int, int]
Arrays = dict[str, np.ndarray]

LAYERS = ("evonorm_s0", "evonorm_b0", "bn_relu", "gn_silu")
PEERS = ("torch", "torch.compile", "jax")
SHAPES: tuple[Shape, ...] = ((32, 128, 56, 56), (32, 64, 32, 32), (8, 16, 8, 8))
CHECK_SHAPES: tuple[Shape, ...] = ((4, 64, 6, 6), (3, 16, 5, 7))
EPS = 1e-5
MOMENTUM = 0.1
MOST_GROUPS = 32
THREADS = 2
WARM_UPS = 3
FEWEST_RUNS = 5
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One layer at one shape, with the numbers it is measured on."""

    layer: str
    shape: Shape
    x: np.ndarray
    dy: np.ndarray
    params: Arrays

    @property
    def channels(self) -> int:
        return self.shape[1]

    @property
    def groups(self) -> int:
        """The most groups, 32 or fewer, into which the channels divide evenly."""
        return max(g for g in range(1, MOST_GROUPS + 1) if self.channels % g == 0)


class Runner(Protocol):
    """A layer made ready by one peer. Every method returns only when the work is done."""

    def forward(self) -> Any: ...

    def step(self) -> Any:
        """Forward and backward; what it returns keeps output and gradients alive."""

    def reset(self) -> None:
        """Drops the gradients of the last step; not timed."""

    def results(self) -> Arrays:
        """Output, gradients and updated running statistics of one step on fresh running statistics."""

    def saved_bytes(self) -> int | None:
        """Bytes that the forward pass keeps for the backward pass; None if that cannot be told."""


def make_case(layer: str, shape: Shape) -> Case:
    """The same seeded, normally distributed numbers for every peer."""
    rng = np.random.default_rng(20)
    names = ["gamma", "beta"] + (["v"] if layer.startswith("evonorm") else [])

    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal(size, dtype=np.float32)

    params = {name: normal(shape[1]) * 0.2 + (0.0 if name == "beta" else 1.0) for name in names}
    return Case(layer, shape, normal(*shape), normal(*shape), {k: v.astype(np.float32) for k, v in params.items()})


# --- PyTorch ------------------------------------------------------------------------------------------


def torch_module(case: Case) -> Any:
    """The layer as PyTorch or timm has it, with the parameters of the case, in training mode."""
    import torch
    from timm.layers import EvoNorm2dB0, EvoNorm2dS0
    from torch import nn

    channels = case.channels
    if case.layer == "evonorm_s0":
        module: nn.Module = EvoNorm2dS0(channels, groups=case.groups, eps=EPS)
    elif case.layer == "evonorm_b0":
        module = EvoNorm2dB0(channels, eps=EPS, momentum=MOMENTUM)
    elif case.layer == "bn_relu":
        module = nn.Sequential(nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM), nn.ReLU())
    else:
        module = nn.Sequential(nn.GroupNorm(case.groups, channels, eps=EPS), nn.SiLU())
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(case.params[our_name(name)]))
    return module.train()


def our_name(name: str) -> str:
    """Our name of a PyTorch parameter: `0.weight` is gamma."""
    return {"weight": "gamma", "bias": "beta"}.get(name.split(".")[-1], name.split(".")[-1])


class TorchRunner:
    """PyTorch, eager or through torch.compile in its default mode."""

    def __init__(self, case: Case, compiled: bool) -> None:
        import torch

        torch.set_num_threads(THREADS)
        self.module = torch_module(case)
        self.call: Callable[[Any], Any] = torch.compile(self.module) if compiled else self.module
        self.x = torch.from_numpy(case.x).requires_grad_()
        self.dy = torch.from_numpy(case.dy)

    def forward(self) -> Any:
        return self.call(self.x)

    def step(self) -> Any:
        y = self.call(self.x)
        y.backward(self.dy)
        return y

    def reset(self) -> None:
        self.x.grad = None
        for parameter in self.module.parameters():
            parameter.grad = None

    def results(self) -> Arrays:
        self.reset()
        y = self.step()
        found = {"y": y, "dx": self.x.grad}
        found |= {f"d{our_name(name)}": p.grad for name, p in self.module.named_parameters()}
        found |= {our_name(name): b for name, b in self.module.named_buffers() if "running" in name}
        return {name: tensor.detach().numpy().copy() for name, tensor in found.items()}

    def saved_bytes(self) -> int | None:
        import torch

        own = {t.untyped_storage().data_ptr() for t in [*self.module.parameters(), *self.module.buffers()]}
        kept: dict[int, int] = {}

        def pack(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = self.call(self.x)
        del y
        return sum(kept.values())


# --- JAX ----------------------------------------------------------------------------------------------


def jax_layer(case: Case) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """The layer in plain jax.numpy: (parameters, running statistics, x) to (output, new statistics)."""
    import jax
    import jax.numpy as jnp

    n, c, h, w = case.shape
    count = n * h * w

    def channel(value: Any) -> Any:
        return value.reshape(1, c, 1, 1)

    def moments(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
        mean = jnp.mean(x, axes, keepdims=True)
        return mean, jnp.mean(jnp.square(x - mean), axes, keepdims=True)

    def grouped(x: Any) -> Any:
        return x.reshape(n, case.groups, c // case.groups, h, w)

    def blend(old: Any, new: Any) -> Any:
        return (1 - MOMENTUM) * old + MOMENTUM * jax.lax.stop_gradient(new).reshape(c)

    def evonorm_s0(p: Any, running: Any, x: Any) -> tuple[Any, Any]:
        std = jnp.sqrt(moments(grouped(x), (2, 3, 4))[1] + EPS)
        z = (grouped(x * jax.nn.sigmoid(channel(p["v"]) * x)) / std).reshape(x.shape)
        return z * channel(p["gamma"]) + channel(p["beta"]), running

    def evonorm_b0(p: Any, running: Any, x: Any) -> tuple[Any, Any]:
        var = moments(x, (0, 2, 3))[1]
        instance = jnp.sqrt(moments(x, (2, 3))[1] + EPS)
        z = x / jnp.maximum(jnp.sqrt(var + EPS), channel(p["v"]) * x + instance)
        new = {"running_var": blend(running["running_var"], var * (count / (count - 1)))}
        return z * channel(p["gamma"]) + channel(p["beta"]), new

    def bn_relu(p: Any, running: Any, x: Any) -> tuple[Any, Any]:
        mean, var = moments(x, (0, 2, 3))
        z = (x - mean) / jnp.sqrt(var + EPS)
        new = {
            "running_mean": blend(running["running_mean"], mean),
            "running_var": blend(running["running_var"], var * (count / (count - 1))),
        }
        return jnp.maximum(z * channel(p["gamma"]) + channel(p["beta"]), 0), new

    def gn_silu(p: Any, running: Any, x: Any) -> tuple[Any, Any]:
        mean, var = moments(grouped(x), (2, 3, 4))
        z = ((grouped(x) - mean) / jnp.sqrt(var + EPS)).reshape(x.shape)
        z = z * channel(p["gamma"]) + channel(p["beta"])
        return z * jax.nn.sigmoid(z), running

    return {"evonorm_s0": evonorm_s0, "evonorm_b0": evonorm_b0, "bn_relu": bn_relu, "gn_silu": gn_silu}[case.layer]


class JaxRunner:
    """jax.jit of the layer and of the layer with its gradients, one compiled function each."""

    def __init__(self, case: Case) -> None:
        import jax
        import jax.numpy as jnp

        layer = jax_layer(case)
        running = {"bn_relu": {"running_mean": 0.0, "running_var": 1.0}, "evonorm_b0": {"running_var": 1.0}}
        self.running = {k: jnp.full(case.channels, v, jnp.float32) for k, v in running.get(case.layer, {}).items()}
        self.params = {name: jnp.array(value) for name, value in case.params.items()}
        self.x, self.dy = jnp.array(case.x), jnp.array(case.dy)

        def step(params: Any, running: Any, x: Any, dy: Any) -> Any:
            y, pull_back, new = jax.vjp(lambda p, x: layer(p, running, x), params, x, has_aux=True)
            return y, new, pull_back(dy)

        self.run_forward = jax.jit(layer)
        self.run_step = jax.jit(step)
        self.wait = jax.block_until_ready

    def forward(self) -> Any:
        return self.wait(self.run_forward(self.params, self.running, self.x))

    def step(self) -> Any:
        return self.wait(self.run_step(self.params, self.running, self.x, self.dy))

    def reset(self) -> None:
        """JAX returns gradients instead of keeping them: nothing to drop."""

    def results(self) -> Arrays:
        y, new, (dparams, dx) = self.step()
        found = {"y": y, "dx": dx, **new} | {f"d{name}": value for name, value in dparams.items()}
        return {name: np.asarray(value) for name, value in found.items()}

    def saved_bytes(self) -> int | None:
        return None


def make_runner(peer: str, case: Case) -> Runner:
    return JaxRunner(case) if peer == "jax" else TorchRunner(case, compiled=peer == "torch.compile")


# --- Measuring ----------------------------------------------------------------------------------------


def seconds(action: Callable[[], Any]) -> float:
    """How long an action takes; what it returns is freed after the clock has stopped."""
    start = time.perf_counter()
    kept = action()
    elapsed = time.perf_counter() - start
    del kept
    return elapsed


def timings(action: Callable[[], Any], reset: Callable[[], None], runs: int) -> list[float]:
    """Milliseconds of every timed run, after the warm-ups. Runs of over a second are made 5 times."""
    for _ in range(WARM_UPS):
        warm_up = seconds(action)
        reset()
    found = []
    for _ in range(min(runs, FEWEST_RUNS) if warm_up > 1 else runs):
        found.append(seconds(action) * 1e3)
        reset()
    return found


def memory(field: str) -> int | None:
    """A memory figure of this process in bytes, from Linux: VmRSS (now) or VmHWM (the most so far)."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field + ":"))
    except (OSError, StopIteration):
        return None


def give_back_memory() -> None:
    """Returns freed memory to the system and restarts its high-water mark, where the system can do that."""
    import ctypes

    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as control:
            control.write("5")
    except (OSError, AttributeError):
        pass


def peak_memory(runner: Runner) -> int | None:
    """How much the process grows at most during one step, over what it holds with input and dy only.

    The layer has run before, so compiling and the libraries' first-use costs are not in it.
    """
    give_back_memory()
    before = memory("VmRSS")
    kept = runner.step()
    most = memory("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    del kept
    runner.reset()
    return None if before is None else max(most - before, 0)


def versions(peer: str) -> dict[str, str]:
    packages = ("jax", "jaxlib") if peer == "jax" else ("torch", "timm")
    return {"python": sys.version.split()[0]} | {package: version(package) for package in packages}


def measure_times(peer: str, layer: str, shape: Shape, runs: int) -> dict[str, Any]:
    """The times of one peer, layer and shape. Meant for a fresh process."""
    runner = make_runner(peer, make_case(layer, shape))
    first = seconds(runner.step)
    runner.reset()
    step = timings(runner.step, runner.reset, runs)
    forward = timings(runner.forward, runner.reset, runs)
    return {
        "peer": peer,
        "layer": layer,
        "shape": list(shape),
        "forward_ms": statistics.median(forward),
        "forward_backward_ms": statistics.median(step),
        "forward_range": [min(forward), max(forward)],
        "forward_backward_range": [min(step), max(step)],
        "runs": len(step),
        "compile_seconds": None if peer == "torch" else first,
        "versions": versions(peer),
    }


def measure_memory(peer: str, layer: str, shape: Shape) -> dict[str, Any]:
    """The memory figures of one peer, layer and shape. Meant for a fresh process."""
    case = make_case(layer, shape)
    runner = make_runner(peer, case)
    for _ in range(WARM_UPS):
        runner.step()
        runner.reset()
    peak = peak_memory(runner)
    saved = runner.saved_bytes()
    return {
        "peak_bytes": peak,
        "saved_bytes": saved,
        "saved_inputs": None if saved is None else saved / case.x.nbytes,
    }


def measure_apart(peer: str, layer: str, shape: Shape, runs: int) -> dict[str, Any] | None:
    """Times and memory, each from a process of its own; None and a message if one fails.

    The compiler's cache is empty when the times are taken, so that compiling is measured in full. Where
    memory is measured, the C library is told to return every large block to the system when it is freed,
    or blocks of earlier steps would be used again and hide what a step takes; that would slow down the times.
    """
    command = [sys.executable, __file__, "--peers", peer, "--layers", layer]
    command += ["--shape", ",".join(map(str, shape)), "--runs", str(runs), "--one"]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "TORCHINDUCTOR_CACHE_DIR": cache,
            "CUDA_VISIBLE_DEVICES": "",
            "JAX_PLATFORMS": "cpu",
        }
        for what, extra in (("times", {}), ("memory", {"MALLOC_MMAP_THRESHOLD_": "65536"})):
            result = subprocess.run([*command, what], capture_output=True, text=True, env=environment | extra)
            if result.returncode != 0:
                end = "\n".join(result.stderr.strip().splitlines()[-12:])
                print(f"peers.py: {peer} failed at the {what} of {layer} {shape}:\n{end}", file=sys.stderr)
                return None
            found |= json.loads(result.stdout.strip().splitlines()[-1])
    return found


# --- Checking -----------------------------------------------------------------------------------------


def check(layers: list[str], peers: list[str]) -> bool:
    """Compares every peer with the first one on small inputs: outputs, gradients, running statistics."""
    good = True
    for shape in CHECK_SHAPES:
        for layer in layers:
            case = make_case(layer, shape)
            expected = make_runner(peers[0], case).results()
            for peer in peers[1:]:
                good &= agrees(f"{layer} {shape}", peers[0], expected, peer, make_runner(peer, case).results())
    return good


def agrees(what: str, first: str, expected: Arrays, peer: str, found: Arrays) -> bool:
    """Prints the largest difference between two peers' results, relative to the largest value if over 1."""
    if expected.keys() != found.keys():
        print(f"{what}: {first} has {sorted(expected)}, {peer} has {sorted(found)}")
        return False
    worst = {
        name: float(np.abs(found[name] - value).max() / max(1.0, np.abs(value).max()))
        for name, value in expected.items()
    }
    name = max(worst, key=lambda key: math.inf if math.isnan(worst[key]) else worst[key])
    good = worst[name] <= TOLERANCE
    print(f"{what}: {peer} {'agrees with' if good else 'DIFFERS from'} {first}, at most {worst[name]:.1e} ({name})")
    return good


# --- Reporting ----------------------------------------------------------------------------------------


def megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.1f}"


def print_table(results: list[dict[str, Any]]) -> None:
    print(f"{'shape':16} {'layer':11} {'peer':14} {'forward ms':>11} {'fwd+bwd ms':>11} {'min - max':>17}", end=" ")
    print(f"{'peak MB':>8} {'kept':>7} {'compile s':>9}")
    for r in results:
        low, high = r["forward_backward_range"]
        kept = "-" if r["saved_inputs"] is None else f"{r['saved_inputs']:.2f} x"
        compiling = "-" if r["compile_seconds"] is None else f"{r['compile_seconds']:.1f}"
        print(f"{'x'.join(map(str, r['shape'])):16} {r['layer']:11} {r['peer']:14}", end=" ")
        print(f"{r['forward_ms']:11.3f} {r['forward_backward_ms']:11.3f} {f'{low:.3f} - {high:.3f}':>17}", end=" ")
        print(f"{megabytes(r['peak_bytes']):>8} {kept:>7} {compiling:>9}")
    print("medians; peak: growth of the process in one step; kept: for the backward pass, as a multiple of the input")


def parse_shape(text: str) -> Shape:
    parts = text.replace("x", ",").split(",")
    if len(parts) != 4 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"`{text}` is no shape: give batch,channels,height,width, as 32,64,32,32")
    n, c, h, w = map(int, parts)
    return n, c, h, w


def parse_names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"`{name}` is not known: there are {', '.join(known)}")
        return text.split(",")

    return parse


def parse_runs(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of runs: give 1 or more")
    return int(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures PyTorch, torch.compile and JAX on the CPU.")
    add = parser.add_argument
    add("--shape", type=parse_shape, action="append", help="batch,channels,height,width; may be given several times")
    add("--layers", type=parse_names(LAYERS), default=list(LAYERS), help=f"some of {','.join(LAYERS)}")
    add("--peers", type=parse_names(PEERS), default=list(PEERS), help=f"some of {','.join(PEERS)}")
    add("--runs", type=parse_runs, default=20, help="timed runs (20); at most 5 where one takes over a second")
    add("--json", metavar="FILE", help="write the results there as JSON")
    add("--check", action="store_true", help="only check that all peers compute the same")
    add("--one", choices=("times", "memory"), help="measure one case in this process and print one line of JSON")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    shapes = options.shape or list(SHAPES)
    if options.check:
        return 0 if check(options.layers, options.peers) else 1
    if options.one:
        peer, layer, shape = options.peers[0], options.layers[0], shapes[0]
        times = options.one == "times"
        found = measure_times(peer, layer, shape, options.runs) if times else measure_memory(peer, layer, shape)
        print(json.dumps(found))
        return 0
    cases = [(peer, layer, shape) for shape in shapes for layer in options.layers for peer in options.peers]
    results = []
    for number, (peer, layer, shape) in enumerate(cases, 1):
        print(f"[{number}/{len(cases)}] {peer} {layer} {'x'.join(map(str, shape))}", file=sys.stderr)
        results.append(measure_apart(peer, layer, shape, options.runs))
    measured = [result for result in results if result is not None]
    print_table(measured)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(measured, file, indent=1)
    return 0 if len(measured) == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
