"""The layer `gn_silu` for PyTorch, emitted by normact from this formula:

    // Group normalization, then SiLU, as in diffusion networks.
    // Wu and He, ECCV 2018; Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020.
    layer gn_silu(x, groups = 32, eps = 1e-5) {
        param gamma = 1
        param beta  = 0

        let z = (x - mean[group](x)) / std[group](x)
        silu(z * gamma + beta)
    }
"""

import torch
from torch import Tensor, nn


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """One value per channel, or one for all, as [1, channels, 1] in the precision of `x`."""
    return values.to(x.dtype).view(1, -1, 1)


class GnSilu(nn.Module):
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

        grouped = x.unflatten(1, [self.groups, -1]).flatten(2)
        var_group, mean_group = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
        mean_group = mean_group.repeat_interleave(self.channels // self.groups, dim=1)
        var_group = var_group.repeat_interleave(self.channels // self.groups, dim=1)
        t1 = (x - mean_group) / torch.sqrt(var_group + 1e-5) * gamma + beta
        y = t1 * torch.sigmoid(t1)
        return y.view(shape).to(dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, groups={self.groups}"
