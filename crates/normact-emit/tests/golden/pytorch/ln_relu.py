"""The layer `ln_relu` for PyTorch, emitted by normact from this formula:

    // Layer normalization over channels and positions, then ReLU.
    // Ba et al., "Layer Normalization", 2016.
    layer ln_relu(x, eps = 1e-5) {
        param gamma = 1
        param beta  = 0

        let z = (x - mean[layer](x)) / std[layer](x)
        relu(z * gamma + beta)
    }
"""

import torch
from torch import Tensor, nn


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """One value per channel, or one for all, as [1, channels, 1] in the precision of `x`."""
    return values.to(x.dtype).view(1, -1, 1)


class LnRelu(nn.Module):
    """The layer, for inputs of shape [samples, channels] and up to three axes of positions after these.

    Half precision is computed in float32.
    """

    def __init__(self, channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, not {channels}")
        self.channels = channels
        self.gamma = nn.Parameter(torch.ones(channels, device=device, dtype=dtype))
        self.beta = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        if not 2 <= x.dim() <= 5 or x.size(1) != self.channels:
            raise ValueError(f"expected shape [n, {self.channels}] or up to three axes more, got {list(x.shape)}")
        if not x.is_floating_point():
            raise TypeError("expected floating-point numbers")

        shape, dtype = x.shape, x.dtype
        x = x.unsqueeze(-1).flatten(2)  # [samples, channels, positions]
        x = x if dtype == torch.float64 else x.float()
        gamma = per_channel(self.gamma, x)
        beta = per_channel(self.beta, x)

        var_layer, mean_layer = torch.var_mean(x, dim=(1, 2), correction=0, keepdim=True)
        t1 = (x - mean_layer) / torch.sqrt(var_layer + 1e-5) * gamma + beta
        y = torch.maximum(t1, x.new_zeros([1]))
        return y.view(shape).to(dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}"
