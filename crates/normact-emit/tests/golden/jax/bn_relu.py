"""The layer `bn_relu` for JAX, emitted by normact from this formula:

    // Batch normalization, then ReLU. Running statistics follow PyTorch's BatchNorm2d.
    // Ioffe and Szegedy, "Batch Normalization", ICML 2015.
    layer bn_relu(x, eps = 1e-5, momentum = 0.1, running = unbiased) {
        param gamma = 1
        param beta  = 0

        let z = (x - mean[batch](x)) / std[batch](x)
        relu(z * gamma + beta)
    }
"""

import math

import jax
import jax.numpy as jnp


def per_channel(values, x):
    """One value per channel, or one for all, as [1, channels, 1] in the precision of `x`."""
    return jnp.asarray(values, x.dtype).reshape(1, -1, 1)


def moved(running, value, momentum):
    """A running average, moved to `value`, which has the weight `momentum`."""
    value = jax.lax.stop_gradient(value).reshape(running.shape)
    return ((1 - momentum) * running.astype(value.dtype) + momentum * value).astype(running.dtype)


def init(channels, dtype=jnp.float32):
    """The parameters and the running averages that the layer starts with: `(params, state)`."""
    if channels < 1:
        raise ValueError(f"channels must be at least 1, not {channels}")
    params = {
        "gamma": jnp.ones(channels, dtype),
        "beta": jnp.zeros(channels, dtype),
    }
    state = {
        "running_mean": jnp.zeros(channels, dtype),
        "running_var": jnp.ones(channels, dtype),
    }
    return params, state


def bn_relu(params, state, x, *, training):
    """`(y, new_state)` for `x` of shape [samples, channels] and up to three axes of positions after these.

    In training, statistics over samples are those of the batch and move the running averages of `state`, which
    stand for them in evaluation. `training` is a bool, static under `jax.jit`. Half precision is computed in
    float32.
    """
    x = jnp.asarray(x)
    shape, dtype = x.shape, x.dtype
    if not 2 <= len(shape) <= 5:
        raise ValueError(f"expected shape [n, c] or up to three axes more, got {shape}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"expected floating-point numbers, got {dtype}")
    channels = shape[1]
    if len(params["gamma"]) != channels:
        raise ValueError(f"expected {len(params['gamma'])} channels, got an input of shape {shape}")

    x = x.astype(jnp.promote_types(dtype, jnp.float32))
    x = x.reshape(shape[0], channels, math.prod(shape[2:]))
    gamma = per_channel(params["gamma"], x)
    beta = per_channel(params["beta"], x)

    new_state = dict(state)
    if training:
        mean_batch = jnp.mean(x, axis=(0, 2), keepdims=True)
        var_batch = jnp.mean(jnp.square(x - mean_batch), axis=(0, 2), keepdims=True)
        new_state["running_mean"] = moved(state["running_mean"], mean_batch, 0.1)
        count = x.size // var_batch.size
        new_state["running_var"] = moved(state["running_var"], var_batch * (count / max(count - 1, 1)), 0.1)
    else:
        mean_batch = per_channel(state["running_mean"], x)
        var_batch = per_channel(state["running_var"], x)
    t1 = (x - mean_batch) / jnp.sqrt(var_batch + 1e-5) * gamma + beta
    y = jnp.maximum(t1, 0)
    return y.reshape(shape).astype(dtype), new_state


try:
    from flax import linen
except ImportError:
    pass  # Without Flax, the layer is the functions above.
else:

    class BnRelu(linen.Module):
        """`bn_relu` with parameters in the collection `params` and running averages in `batch_stats`, for
        axis 1 as the channels."""

        param_dtype: jnp.dtype = jnp.float32

        @linen.compact
        def __call__(self, x, *, training):
            params, state = init(x.shape[1], self.param_dtype)
            params = {name: self.param(name, lambda _, value: value, value) for name, value in params.items()}
            running = {
                name: self.variable("batch_stats", name, lambda value: value, value) for name, value in state.items()
            }
            state = {name: variable.value for name, variable in running.items()}
            y, state = bn_relu(params, state, x, training=training)
            if training and not self.is_initializing():
                for name, variable in running.items():
                    variable.value = state[name]
            return y
