"""The layer `dyt` for JAX, emitted by normact from this formula:

    // Dynamic tanh: a transformer's normalization without statistics.
    // Zhu et al., "Transformers without Normalization", CVPR 2025.
    layer dyt(x) {
        param alpha: scalar = 0.5
        param gamma = 1
        param beta  = 0

        gamma * tanh(alpha * x) + beta
    }
"""

import math

import jax.numpy as jnp


def per_channel(values, x):
    """One value per channel, or one for all, as [1, channels, 1] in the precision of `x`."""
    return jnp.asarray(values, x.dtype).reshape(1, -1, 1)


def init(channels, dtype=jnp.float32):
    """The parameters and the running averages that the layer starts with: `(params, state)`."""
    if channels < 1:
        raise ValueError(f"channels must be at least 1, not {channels}")
    params = {
        "alpha": jnp.full(1, 0.5, dtype),
        "gamma": jnp.ones(channels, dtype),
        "beta": jnp.zeros(channels, dtype),
    }
    state = {}
    return params, state


def dyt(params, state, x, *, training):
    """`(y, state)` for `x` of shape [samples, channels] and up to three axes of positions after these.

    Training makes no difference, and the state is empty. Half precision is computed in float32.
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
    alpha = per_channel(params["alpha"], x)
    gamma = per_channel(params["gamma"], x)
    beta = per_channel(params["beta"], x)

    y = gamma * jnp.tanh(alpha * x) + beta
    return y.reshape(shape).astype(dtype), state


try:
    from flax import linen
except ImportError:
    pass  # Without Flax, the layer is the functions above.
else:

    class Dyt(linen.Module):
        """`dyt` with parameters in the collection `params`, for axis 1 as the channels."""

        param_dtype: jnp.dtype = jnp.float32

        @linen.compact
        def __call__(self, x, *, training=False):
            params, state = init(x.shape[1], self.param_dtype)
            params = {name: self.param(name, lambda _, value: value, value) for name, value in params.items()}
            y, _ = dyt(params, state, x, training=training)
            return y
