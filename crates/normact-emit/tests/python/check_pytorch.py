"""Checks emitted PyTorch files against the numbers in a folder, and with what PyTorch does with modules.

Usage: check_pytorch.py FOLDER
"""

import io
import sys
import warnings
from pathlib import Path

import safetensors.torch
import torch
from cases import Tally, load, load_module, require
from torch import nn

FOLDER = Path(sys.argv[1])


def make(case: dict) -> nn.Module:
    """The layer of a case in float64, with its parameters and running averages."""
    module = getattr(load_module(FOLDER, case["layer"]), case["class"])(case["shape"][1], dtype=torch.float64)
    values = case["params"] | case["state"]
    module.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    return module


def run(module: nn.Module, case: dict, tally: Tally, how: str) -> None:
    """Two training steps and an evaluation."""
    for number, step in enumerate(case["steps"]):
        module.train(step["training"])
        x = torch.tensor(step["x"], requires_grad=True)
        module.zero_grad(set_to_none=True)
        y = module(x)
        require(y.shape == x.shape and y.dtype == x.dtype, f"{case['layer']} gives {y.dtype} of shape {y.shape}")
        if y.requires_grad:
            y.backward(torch.tensor(step["dy"]))
        found = {"y": y.detach(), "dx": zeros_for(x)}
        found |= {f"grad.{name}": zeros_for(value) for name, value in module.named_parameters()}
        found |= {f"state.{name}": value for name, value in module.named_buffers()}
        require(found.keys() == step["expected"].keys(), f"{case['layer']} has {list(found)}")
        for name, (expected, allowed) in step["expected"].items():
            place = f"{how} {case['layer']} {case['shape']}, step {number}: {name}"
            tally.compare(place, found[name].numpy(), expected, allowed)


def zeros_for(value: torch.Tensor) -> torch.Tensor:
    """A gradient, 0 where nothing depends on the value."""
    return torch.zeros_like(value) if value.grad is None else value.grad


def same(found: torch.Tensor, expected: torch.Tensor, message: str) -> None:
    """Bit for bit, NaN for NaN."""
    require(torch.equal(found.nan_to_num(), expected.nan_to_num()), message)


def check_traced(case: dict) -> None:
    """A traced layer gives the same for another number of samples, and an exported one for the same."""
    module = make(case).eval()
    x = torch.tensor(case["steps"][0]["x"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(module, x)
    twice = torch.cat([x, -x])
    same(traced(twice), module(twice), f"{case['layer']} is another layer when traced")
    exported = torch.export.export(module, (x,)).module()
    same(exported(x), module(x), f"{case['layer']} is another layer when exported")


def check_half(case: dict) -> None:
    """Half precision is computed in float32, whichever precision the parameters have."""
    for dtype in (torch.float16, torch.bfloat16):
        for param_dtype in (torch.float32, dtype):
            half, single = (make(case).eval().to(param_dtype) for _ in range(2))
            x = torch.tensor(case["steps"][0]["x"]).to(dtype)
            found, expected = half(x), single(x.float())
            require(found.dtype == dtype and expected.dtype == torch.float32, f"{case['layer']} has other precisions")
            same(found, expected.to(dtype), f"{case['layer']} is not computed in float32 from {dtype}")
            half.train()(x.requires_grad_()).sum().backward()
            require(x.grad.dtype == dtype, f"{case['layer']} has gradients in {x.grad.dtype}")
            close = torch.allclose(expected.double(), make(case).eval()(x.double()), rtol=2e-2, atol=2e-2)
            require(close or param_dtype == dtype, f"{case['layer']} is far off in float32")


def check_weights(case: dict) -> None:
    """Weights can be saved and loaded, by torch and as safetensors."""
    module = make(case).eval()
    x = torch.tensor(case["steps"][0]["x"])
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    for state in (torch.load(file), safetensors.torch.load(safetensors.torch.save(module.state_dict()))):
        other = type(module)(case["shape"][1], dtype=torch.float64).eval()
        other.load_state_dict(state)
        same(other(x), module(x), f"{case['layer']} is another layer after loading")
    expected = case["params"].keys() | case["state"].keys()
    require(module.state_dict().keys() == expected, f"{case['layer']} saves {list(module.state_dict())}")


def check_memory_formats(case: dict) -> None:
    """The layout in memory makes no difference."""
    if len(case["shape"]) != 4:
        return
    module = make(case).eval()
    x = torch.tensor(case["steps"][0]["x"])
    found = module(x.to(memory_format=torch.channels_last))
    require(torch.allclose(found, module(x), rtol=1e-12, equal_nan=True), f"{case['layer']} depends on the layout")


def check_refusals(case: dict) -> None:
    """Inputs that do not fit are named."""
    module = make(case)
    channels = case["shape"][1]
    inputs = [torch.zeros(2, channels + 1, 3), torch.zeros(channels), torch.zeros(1, channels, 1, 1, 1, 1)]
    for x in [*inputs, torch.zeros(2, channels, dtype=torch.int64)]:
        try:
            module(x)
        except (TypeError, ValueError) as error:
            require(str(error).startswith("expected "), f"an input is refused with {error}")
        else:
            require(False, f"{case['layer']} takes an input of shape {list(x.shape)}")
    require(f"({channels}" in repr(module), f"{module!r} does not say the number of channels")


def check_groups(cases: list[dict]) -> None:
    """Numbers of groups are lowered to fit, or refused."""
    layer = next(case for case in cases if case["layer"] == "evonorm_s0")
    make_layer = getattr(load_module(FOLDER, layer["layer"]), layer["class"])
    found = {channels: make_layer(channels).groups for channels in (64, 48, 16, 7, 37)}
    require(found == {64: 32, 48: 24, 16: 16, 7: 7, 37: 1}, f"the numbers of groups are {found}")
    layer = next(case for case in cases if case["layer"] == "settings")
    for channels, message in ((3, "group(2) does not divide 3 channels"), (0, "channels must be at least 1, not 0")):
        try:
            getattr(load_module(FOLDER, layer["layer"]), layer["class"])(channels)
        except ValueError as error:
            require(str(error) == message, f"{channels} channels are refused with {error}")
        else:
            require(False, f"{channels} channels are taken")


def main() -> None:
    # TorchScript is old, and still what many programs load.
    warnings.filterwarnings("ignore", message=".*torch.jit.* is deprecated")
    torch.set_num_threads(1)
    cases, tally = load(FOLDER), Tally()
    scripted = compiled = 0
    seen: set[str] = set()
    for case in cases:
        run(make(case), case, tally, "eager")
        is_first = case["layer"] not in seen
        seen.add(case["layer"])
        if not is_first:
            continue
        run(torch.jit.script(make(case)), case, tally, "scripted")
        scripted += 1
        if case["kind"] != "random" or case["layer"].endswith("7"):
            torch.compiler.reset()
            module = make(case)
            module.compile(backend="eager", fullgraph=True)
            run(module, case, tally, "compiled")
            compiled += 1
        if case["kind"] != "random":
            check_traced(case)
            check_memory_formats(case)
            check_weights(case)
            check_refusals(case)
        if case["kind"] == "built_in":
            check_half(case)
    check_groups(cases)
    print(f"PyTorch {torch.__version__}: {len(cases)} cases of {len(seen)} layers, {scripted} scripted, {compiled} compiled")
    tally.finish("PyTorch")


if __name__ == "__main__":
    main()
