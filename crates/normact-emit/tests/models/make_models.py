"""Exports layers written in PyTorch to ONNX, by both exporters: python make_models.py FOLDER

Each layer becomes NAME.dynamo.onnx and NAME.script.onnx, and NAME.json holds the shape of an input, the input and
the output. The models in this folder were made with torch 2.15.0, onnx 1.19.1 and onnxscript 0.7.2.
"""

import json
import sys
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn


def per_channel(channels: int, low: float, high: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(1, channels, 1, 1).uniform_(low, high))


class EvoNormS0(nn.Module):
    """As in the code that goes with the paper: the variance of each group is expanded to the input's shape."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.v, self.gamma, self.beta = (per_channel(channels, low, 2) for low in (0.5, 0.5, -1))

    def group_std(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.size()
        grouped = x.view(n, self.groups, c // self.groups, h, w)
        var = grouped.var(dim=(2, 3, 4), keepdim=True, unbiased=False).expand_as(grouped)
        return torch.sqrt(var + 1e-5).reshape(n, c, h, w)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.v * x) / self.group_std(x) * self.gamma + self.beta


class FilterResponse(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta, self.tau = (per_channel(channels, low, 1) for low in (0.5, -1, -1))
        self.alpha = nn.Parameter(torch.tensor([0.7]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        square = x.pow(2).mean(dim=[2, 3], keepdim=True)
        return torch.max(self.gamma * x * torch.rsqrt(square + 1e-6) + self.beta, self.tau) * self.alpha


class ChannelsLast(nn.Module):
    """Layer normalization over the channels of each position, as ConvNeXt has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.uniform_(self.norm.bias, -1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class Functions(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = nn.functional
        curves = f.hardswish(x) + f.elu(x, 0.5) + f.selu(x) + f.mish(x) + f.leaky_relu(x) + f.softsign(x)
        mean = x.mean(dim=1, keepdim=True)
        return curves + torch.sign(x) * torch.log(1 + x.abs()) + f.relu6(x) - mean.abs() + torch.erf(x).clamp(-0.5, 0.25)


def randomized(norm: nn.Module) -> nn.Module:
    for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, -1 if name in ("bias", "running_mean") else 0.5, 2)
    return norm


LAYERS = {
    "evonorm_s0": lambda: EvoNormS0(6, 2),
    "filter_response": lambda: FilterResponse(6),
    "channels_last": lambda: ChannelsLast(6),
    "functions": Functions,
    "batch_norm_silu": lambda: nn.Sequential(randomized(nn.BatchNorm2d(6, eps=1e-3, momentum=0.2)), nn.SiLU()),
    "group_norm_relu": lambda: nn.Sequential(randomized(nn.GroupNorm(3, 6)), nn.ReLU()),
    "instance_norm_tanh": lambda: nn.Sequential(randomized(nn.InstanceNorm2d(6, affine=True)), nn.Tanh()),
}


def without_notes(path: Path) -> None:
    """Drops where in the program each node comes from, which is most of the file."""
    model = onnx.load(path)
    graph = model.graph
    for message in [model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *model.functions]:
        message.ClearField("metadata_props")
        message.ClearField("doc_string")
    graph.ClearField("value_info")
    onnx.save(model, path)


def main() -> None:
    folder = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    for name, make in LAYERS.items():
        torch.manual_seed(1)
        layer, x = make().eval(), torch.randn(2, 6, 3, 4)
        numbers = {"shape": list(x.shape), "x": x.flatten().tolist(), "y": layer(x).flatten().tolist()}
        (folder / f"{name}.json").write_text(json.dumps(numbers))
        common = {"input_names": ["x"], "output_names": ["y"]}
        free = {0: "N", 2: "H", 3: "W"}
        torch.onnx.export(layer, (x,), folder / f"{name}.script.onnx", dynamo=False, dynamic_axes={"x": free}, **common)
        sizes = ({axis: torch.export.Dim.DYNAMIC for axis in free},)
        torch.onnx.export(
            layer, (x,), folder / f"{name}.dynamo.onnx", dynamo=True, dynamic_shapes=sizes, external_data=False, **common
        )
        without_notes(folder / f"{name}.script.onnx")
        without_notes(folder / f"{name}.dynamo.onnx")


if __name__ == "__main__":
    main()