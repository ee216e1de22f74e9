"""The layer `evonorm_s0` for PyTorch, emitted by normact from this formula:

    // EvoNorm-S0.
    // Liu et al., "Evolving Normalization-Activation Layers", NeurIPS 2020, table 2.
    layer evonorm_s0(x, groups = 32, eps = 1e-5) {
        param v     = 1
        param gamma = 1
        param beta  = 0

        x * sigmoid(v * x) / std[group](x) * gamma + beta
    }
"""

import torch
from torch import Tensor, nn


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """One value per channel, or one for all, as [1, channels, 1] in the precision of `x`."""
    return values.to(x.dtype).view(1, -1, 1)


class EvonormS0(nn.Module):
    """The layer, for inputs of shape [samples, channels] and up to three axes of positions after these.

    Half precision is computed in float32.
    """

    def __init__(self, channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, not {channels}")
        self.channels = channels
        # The largest number of groups, at most 32, that divides the channels.
        self.groups = max(count for count in range(1, min(32, channels) + 1) if channels % count == 0)
        self.v = nn.Parameter(torch.ones(channels, device=device, dtype=dtype))
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
        v = per_channel(self.v, x)
        gamma = per_channel(self.gamma, x)
        beta = per_channel(self.beta, x)

        grouped = x.unflatten(1, [self.groups, -1]).flatten(2)
        var_group = torch.var(grouped, dim=2, correction=0, keepdim=True)
        var_group = var_group.repeat_interleave(self.channels // self.groups, dim=1)
        t1 = x * torch.sigmoid(v * x) / torch.sqrt(var_group + 1e-5) * gamma
        y = t1 + beta
        return y.view(shape).to(dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, groups={self.groups}"
