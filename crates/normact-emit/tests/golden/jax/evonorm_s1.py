"""The layer `evonorm_s1` for JAX, emitted by normact from this formula:

    // EvoNorm-S1.
    // Liu et al., "Evolving Normalization-Activation Layers", NeurIPS 2020, appendix.
    layer evonorm_s1(x, groups = 32, eps = 1e-5) {
        param gamma = 1
        param beta  = 0

        silu(x) / std[group](x) * gamma + beta
    }
"""

import math

import jax
import jax.numpy as jnp


def per_channel(values, x):
    """One value per channel, or one for all, as [1, channels, 1] in the precision of `x`."""
    return jnp.asarray(values, x.dtype).reshape(1, -1, 1)


def init(channels, dtype=jnp.float32):
    """The parameters and the running averages that the layer starts with: `(params, state)`."""
    if channels < 1:
        raise ValueError(f"channels must be at least 1, not {channels}")
    params = {
        "gamma": jnp.ones(channels, dtype),
        "beta": jnp.zeros(channels, dtype),
    }
    state = {}
    return params, state


def evonorm_s1(params, state, x, *, training):
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
    # The largest number of groups, at most 32, that divides the channels.
    groups = max(count for count in range(1, min(32, channels) + 1) if channels % count == 0)

    x = x.astype(jnp.promote_types(dtype, jnp.float32))
    x = x.reshape(shape[0], channels, math.prod(shape[2:]))
    gamma = per_channel(params["gamma"], x)
    beta = per_channel(params["beta"], x)

    grouped = x.reshape(x.shape[0], groups, -1)
    var_group = jnp.var(grouped, axis=2, keepdims=True)
    var_group = jnp.repeat(var_group, channels // groups, axis=1)
    y = x * jax.nn.sigmoid(x) / jnp.sqrt(var_group + 1e-5) * gamma + beta
    return y.reshape(shape).astype(dtype), state


try:
    from flax import linen
except ImportError:
    pass  # Without Flax, the layer is the functions above.
else:

    class EvonormS1(linen.Module):
        """`evonorm_s1` with parameters in the collection `params`, for axis 1 as the channels."""

        param_dtype: jnp.dtype = jnp.float32

        @linen.compact
        def __call__(self, x, *, training=False):
            params, state = init(x.shape[1], self.param_dtype)
            params = {name: self.param(name, lambda _, value: value, value) for name, value in params.items()}
            y, _ = evonorm_s1(params, state, x, training=training)
            return y
