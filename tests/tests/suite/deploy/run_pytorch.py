"""Runs FOLDER/evonorm_b0.py with its weights in PyTorch on `x` of INPUT and saves `y` to OUTPUT."""

import sys

import torch
from safetensors.torch import load_file, save_file

folder, source, output = sys.argv[1:]
sys.path.insert(0, folder)
from evonorm_b0 import EvonormB0

weights = load_file(f"{folder}/evonorm_b0.safetensors")
layer = EvonormB0(len(weights["v"]))
layer.load_state_dict(weights)
with torch.no_grad():
    y = layer.eval()(load_file(source)["x"])
save_file({"y": y}, output)
