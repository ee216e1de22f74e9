"""Runs FOLDER/evonorm_b0.py with its weights in JAX on `x` of INPUT and saves `y` to OUTPUT."""

import sys

import numpy
from safetensors.numpy import load_file, save_file

folder, source, output = sys.argv[1:]
sys.path.insert(0, folder)
from evonorm_b0 import evonorm_b0, init

weights = load_file(f"{folder}/evonorm_b0.safetensors")
params, state = ({name: weights[name] for name in names} for names in init(len(weights["v"])))
y, _ = evonorm_b0(params, state, load_file(source)["x"], training=False)
save_file({"y": numpy.asarray(y)}, output)
