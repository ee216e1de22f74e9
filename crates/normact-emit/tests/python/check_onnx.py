"""Checks emitted ONNX models: python check_onnx.py FOLDER

FOLDER holds cases.json, a list of {name, shape}, and for number N of the list the models N.onnx and
N_function.onnx, the input N.x, the expected output N.expected and the error N.allowed that each element may have
(infinite where it is not compared), in float64. Each model has to pass ONNX's checker and its strict shape
inference, and to compute what is expected in ONNX Runtime and in ONNX's reference evaluator.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator


def run_by_runtime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def run_by_reference(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def problem(path: Path, shape: list[int], x: np.ndarray, expected: np.ndarray, allowed: np.ndarray) -> str | None:
    """What is wrong with a model."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    channels = inferred.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    if channels != shape[1]:
        return f"the output is inferred to have {channels} channels"
    for run in (run_by_runtime, run_by_reference):
        found = run(model, x)
        if found.shape != x.shape or found.dtype != np.float32:
            return f"{run.__name__}: {found.dtype} of shape {found.shape}, expected {x.shape}"
        error = np.abs(found.reshape(-1) - expected)
        wrong = np.flatnonzero((allowed < np.inf) & ~(error <= allowed))
        if wrong.size:
            at = wrong[0]
            return f"{run.__name__}: {found.reshape(-1)[at]}, expected {expected[at]}, at {at} ({wrong.size} wrong)"
    return None


def main() -> int:
    folder = Path(sys.argv[1])
    cases = json.loads((folder / "cases.json").read_text())
    problems = 0
    np.seterr(all="ignore")
    for number, case in enumerate(cases):
        x, expected, allowed = (np.fromfile(folder / f"{number}.{kind}") for kind in ("x", "expected", "allowed"))
        x = x.astype(np.float32).reshape(case["shape"])
        for suffix in ("", "_function"):
            path = folder / f"{number}{suffix}.onnx"
            try:
                message = problem(path, case["shape"], x, expected, allowed)
            except Exception as error:  # whatever a library raises is a finding about the model
                message = f"{type(error).__name__}: {error}"
            if message:
                problems += 1
                print(f"{case['name']}{suffix}: {message}", file=sys.stderr)
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}: {2 * len(cases)} models, {problems} wrong")
    return 1 if problems or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
