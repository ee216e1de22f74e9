"""The layer `evonorm_b2` for PyTorch, emitted by normact from this formula:

    // EvoNorm-B2.
    // Liu et al., "Evolving Normalization-Activation Layers", NeurIPS 2020, appendix.
    layer evonorm_b2(x, eps = 1e-5, momentum = 0.1, running = biased) {
        param gamma = 1
        param beta  = 0

        x / max(std[batch](x), rms[instance](x) - x) * gamma + beta
    }
"""

import torch
from torch import Tensor, nn


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """One value per channel, or one for all, as [1, channels, 1] in the precision of `x`."""
    return values.to(x.dtype).view(1, -1, 1)


def update_running(running: Tensor, value: Tensor, momentum: float) -> None:
    """Moves a running average to `value`, which has the weight `momentum`."""
    running.lerp_(value.detach().flatten().to(running.dtype), momentum)


class EvonormB2(nn.Module):
    """The layer, for inputs of shape [samples, channels] and up to three axes of positions after these.

    In training, statistics over samples are those of the batch and move the running averages, which stand for
    them in evaluation.

    Half precision is computed in float32.
    """

    def __init__(self, channels: int, *, device=None, dtype=None) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, not {channels}")
        self.channels = channels
        self.gamma = nn.Parameter(torch.ones(channels, device=device, dtype=dtype))
        self.beta = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(channels, device=device, dtype=dtype))

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

        if self.training:
            var_batch = torch.var(x, dim=(0, 2), correction=0, keepdim=True)
            update_running(self.running_var, var_batch, 0.1)
        else:
            var_batch = per_channel(self.running_var, x)
        mean_square_instance = torch.mean(torch.square(x), dim=2, keepdim=True)
        t1 = torch.maximum(torch.sqrt(var_batch + 1e-5), torch.sqrt(mean_square_instance + 1e-5) - x)
        y = x / t1 * gamma + beta
        return y.view(shape).to(dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}"
