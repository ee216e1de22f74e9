"""Runs FOLDER/evonorm_b0.onnx in ONNX Runtime on `x` of INPUT and saves `y` to OUTPUT."""

import sys

import onnxruntime
from safetensors.numpy import load_file, save_file

folder, source, output = sys.argv[1:]
session = onnxruntime.InferenceSession(f"{folder}/evonorm_b0.onnx", providers=["CPUExecutionProvider"])
(y,) = session.run(None, {session.get_inputs()[0].name: load_file(source)["x"]})
save_file({"y": y}, output)
