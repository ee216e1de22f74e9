"""The layer `ln_gelu_tanh` for JAX, emitted by normact from this formula:

    // Layer normalization over channels and positions, then GELU in its tanh approximation.
    // Ba et al., 2016; Hendrycks and Gimpel, 2016, section 2.
    layer ln_gelu_tanh(x, eps = 1e-5) {
        param gamma = 1
        param beta  = 0

        let z = (x - mean[layer](x)) / std[layer](x)
        gelu_tanh(z * gamma + beta)
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
        "gamma": jnp.ones(channels, dtype),
        "beta": jnp.zeros(channels, dtype),
    }
    state = {}
    return params, state


def ln_gelu_tanh(params, state, x, *, training):
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
    gamma = per_channel(params["gamma"], x)
    beta = per_channel(params["beta"], x)

    mean_layer = jnp.mean(x, axis=(1, 2), keepdims=True)
    var_layer = jnp.mean(jnp.square(x - mean_layer), axis=(1, 2), keepdims=True)
    t1 = (x - mean_layer) / jnp.sqrt(var_layer + 1e-5) * gamma + beta
    t2 = 1 + jnp.tanh(0.7978845608028654 * (t1 + 0.044715 * t1 * jnp.square(t1)))
    y = 0.5 * t1 * t2
    return y.reshape(shape).astype(dtype), state


try:
    from flax import linen
except ImportError:
    pass  # Without Flax, the layer is the functions above.
else:

    class LnGeluTanh(linen.Module):
        """`ln_gelu_tanh` with parameters in the collection `params`, for axis 1 as the channels."""

        param_dtype: jnp.dtype = jnp.float32

        @linen.compact
        def __call__(self, x, *, training=False):
            params, state = init(x.shape[1], self.param_dtype)
            params = {name: self.param(name, lambda _, value: value, value) for name, value in params.items()}
            y, _ = ln_gelu_tanh(params, state, x, training=training)
            return y
