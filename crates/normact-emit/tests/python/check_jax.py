"""Checks emitted JAX files against the numbers in a folder, and with what JAX and Flax do with functions.

Usage: check_jax.py FOLDER
"""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from cases import Tally, load, load_module, require

FOLDER = Path(sys.argv[1])

jax.config.update("jax_enable_x64", True)


def arrays(values: dict) -> dict:
    """A dictionary of arrays on the device."""
    return {name: jnp.asarray(value) for name, value in values.items()}


def run(layer: Callable, case: dict, tally: Tally, how: str) -> None:
    """Two training steps and an evaluation of `layer(params, state, x, training)`."""
    params, state = arrays(case["params"]), arrays(case["state"])
    for number, step in enumerate(case["steps"]):
        x, training = jnp.asarray(step["x"]), step["training"]
        y, pullback, state = jax.vjp(lambda params, x: layer(params, state, x, training), params, x, has_aux=True)
        require(y.shape == x.shape and y.dtype == x.dtype, f"{case['layer']} gives {y.dtype} of shape {y.shape}")
        gradients, dx = pullback(jnp.asarray(step["dy"]))
        found = {"y": y, "dx": dx}
        found |= {f"grad.{name}": value for name, value in gradients.items()}
        found |= {f"state.{name}": value for name, value in state.items()}
        require(found.keys() == step["expected"].keys(), f"{case['layer']} has {list(found)}")
        for name, (expected, allowed) in step["expected"].items():
            place = f"{how} {case['layer']} {case['shape']}, step {number}: {name}"
            tally.compare(place, found[name], expected, allowed)


def plain(module: ModuleType, case: dict) -> Callable:
    """The function of a file."""
    function = getattr(module, case["layer"])
    return lambda params, state, x, training: function(params, state, x, training=training)


def jitted(module: ModuleType, case: dict) -> Callable:
    """The same, compiled."""
    function = jax.jit(getattr(module, case["layer"]), static_argnames="training")
    return lambda params, state, x, training: function(params, state, x, training=training)


def in_flax(module: ModuleType, case: dict) -> Callable:
    """The Flax module of a file."""
    flax_module = getattr(module, case["class"])(param_dtype=jnp.float64)

    def layer(params: dict, state: dict, x: jax.Array, training: bool) -> tuple[jax.Array, dict]:
        variables = {"params": params} | ({"batch_stats": state} if state else {})
        if not training:
            return flax_module.apply(variables, x, training=False), state
        y, changed = flax_module.apply(variables, x, training=True, mutable=["batch_stats"])
        return y, dict(changed.get("batch_stats", {}))

    variables = flax_module.init(jax.random.key(0), jnp.asarray(case["steps"][0]["x"]), training=True)
    params, state = module.init(case["shape"][1], jnp.float64)
    initial = ({"params": params} if params else {}) | ({"batch_stats": state} if state else {})
    require(jax.tree.all(jax.tree.map(jnp.array_equal, variables, initial)), f"{case['layer']} starts elsewhere in Flax")
    return layer


def check_initial(module: ModuleType, case: dict) -> None:
    """`init` gives arrays of the names and shapes of the case."""
    for dtype in (jnp.float32, jnp.bfloat16):
        for values, name in zip(module.init(case["shape"][1], dtype), ("params", "state"), strict=True):
            found = {name: value.shape for name, value in values.items()}
            require(found == {key: value.shape for key, value in case[name].items()}, f"{case['layer']} has {found}")
            require(all(value.dtype == dtype for value in values.values()), f"{case['layer']} has another dtype")


def check_half(module: ModuleType, case: dict) -> None:
    """Half precision is computed in float32, whichever precision the parameters have."""
    layer = plain(module, case)
    exact, _ = layer(arrays(case["params"]), arrays(case["state"]), jnp.asarray(case["steps"][0]["x"]), False)
    for dtype in (jnp.float16, jnp.bfloat16):
        for param_dtype in (jnp.float32, dtype):
            params, state = (
                {name: value.astype(param_dtype) for name, value in arrays(case[part]).items()} for part in ("params", "state")
            )
            x = jnp.asarray(case["steps"][0]["x"], dtype)
            for training in (False, True):
                found, new_state = layer(params, state, x, training)
                expected, _ = layer(params, state, x.astype(jnp.float32), training)
                is_right = found.dtype == dtype and expected.dtype == jnp.float32
                require(is_right, f"{case['layer']} has other precisions")
                is_same = jnp.array_equal(found, expected.astype(dtype), equal_nan=True)
                require(is_same, f"{case['layer']} is not computed in float32 from {dtype}")
                is_kept = all(value.dtype == param_dtype for value in new_state.values())
                require(is_kept, f"{case['layer']} changes the precision of its state")
            if param_dtype == jnp.float32:
                x = jnp.asarray(case["steps"][0]["x"], dtype).astype(jnp.float32)
                found, _ = layer(params, state, x, False)
                exact, _ = layer(arrays(case["params"]), arrays(case["state"]), x.astype(jnp.float64), False)
                require(jnp.allclose(found, exact, rtol=1e-3, atol=1e-3), f"{case['layer']} is far off in float32")


def check_weights(module: ModuleType, case: dict) -> None:
    """Weights are plain arrays: they can be saved as such."""
    layer = plain(module, case)
    x = jnp.asarray(case["steps"][0]["x"])
    file = io.BytesIO()
    np.savez(file, **case["params"], **case["state"])
    file.seek(0)
    saved = np.load(file)
    params, state = ({name: saved[name] for name in case[part]} for part in ("params", "state"))
    found, _ = layer(params, state, x, False)
    expected, _ = layer(arrays(case["params"]), arrays(case["state"]), x, False)
    require(jnp.array_equal(found, expected, equal_nan=True), f"{case['layer']} is another layer after loading")


def check_refusals(module: ModuleType, case: dict) -> None:
    """Inputs that do not fit are named."""
    layer, channels = plain(module, case), case["shape"][1]
    is_sized = any(value.shape != (1,) for part in ("params", "state") for value in case[part].values())
    inputs = [jnp.zeros(channels), jnp.zeros((1, channels, 1, 1, 1, 1)), jnp.zeros((2, channels), jnp.int32)]
    for x in inputs + ([jnp.zeros((2, channels + 2, 3))] if is_sized else []):
        try:
            layer(arrays(case["params"]), arrays(case["state"]), x, True)
        except (TypeError, ValueError) as error:
            require(str(error).startswith("expected "), f"an input is refused with {error}")
        else:
            require(False, f"{case['layer']} takes an input of shape {x.shape}")


def check_groups() -> None:
    """Exact numbers of groups that do not divide the channels are refused."""
    module = load_module(FOLDER, "settings")
    state = {name: value[:3] for name, value in module.init(4)[1].items()}
    calls = [lambda: module.init(3), lambda: module.settings({}, state, jnp.zeros((2, 3)), training=False)]
    for call in calls:
        try:
            call()
        except ValueError as error:
            require(str(error) == "group(2) does not divide 3 channels", f"3 channels are refused with {error}")
        else:
            require(False, "3 channels are taken")


def check_without_flax() -> None:
    """A file does not need Flax."""
    program = "import sys; sys.modules['flax'] = None; import bn_relu; assert not hasattr(bn_relu, 'BnRelu')"
    done = subprocess.run([sys.executable, "-B", "-c", program], cwd=FOLDER, capture_output=True, text=True)
    require(done.returncode == 0, f"without Flax: {done.stderr}")


def main() -> None:
    cases, tally = load(FOLDER), Tally()
    compiled = 0
    seen: set[str] = set()
    for case in cases:
        module = load_module(FOLDER, case["layer"])
        run(plain(module, case), case, tally, "plain")
        is_first = case["layer"] not in seen
        seen.add(case["layer"])
        if not is_first:
            continue
        check_initial(module, case)
        if case["kind"] != "random" or case["layer"].endswith("7"):
            run(jitted(module, case), case, tally, "compiled")
            compiled += 1
        if case["kind"] != "random":
            run(in_flax(module, case), case, tally, "Flax")
            check_weights(module, case)
            check_refusals(module, case)
        if case["kind"] == "built_in":
            check_half(module, case)
    check_groups()
    check_without_flax()
    print(f"JAX {jax.__version__}: {len(cases)} cases of {len(seen)} layers, {compiled} compiled")
    tally.finish("JAX")


if __name__ == "__main__":
    main()
