"""The layer `bn_silu` for PyTorch, emitted by normact from this formula:

    // Batch normalization, then SiLU, as in EfficientNet. Running statistics follow PyTorch's BatchNorm2d.
    // Ioffe and Szegedy, ICML 2015; Ramachandran et al., "Searching for Activation Functions", 2017.
    layer bn_silu(x, eps = 1e-5, momentum = 0.1, running = unbiased) {
        param gamma = 1
        param beta  = 0

        let z = (x - mean[batch](x)) / std[batch](x)
        silu(z * gamma + beta)
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


class BnSilu(nn.Module):
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
        self.register_buffer("running_mean", torch.zeros(channels, device=device, dtype=dtype))
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
            var_batch, mean_batch = torch.var_mean(x, dim=(0, 2), correction=0, keepdim=True)
            update_running(self.running_mean, mean_batch, 0.1)
            count = x.numel() // var_batch.numel()
            update_running(self.running_var, var_batch * (count / max(count - 1, 1)), 0.1)
        else:
            mean_batch = per_channel(self.running_mean, x)
            var_batch = per_channel(self.running_var, x)
        t1 = (x - mean_batch) / torch.sqrt(var_batch + 1e-5) * gamma + beta
        y = t1 * torch.sigmoid(t1)
        return y.view(shape).to(dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}"
