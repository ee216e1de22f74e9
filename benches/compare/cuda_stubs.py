"""Lets the PyTorch wheel from PyPI run on a machine without the CUDA libraries.

The Linux wheel of PyTorch on PyPI is built for CUDA: it is linked to about 1.8 GB (compressed) of NVIDIA
libraries, which a comparison on the CPU never calls, and cannot be imported without them. This script
writes stand-ins with the same names next to PyTorch's own libraries, in the virtual environment that runs
it. PyTorch itself is not changed. The CUDA runtime and profiler libraries are small, and PyTorch does call
them to find out whether there is a GPU, so those two are installed for real (see requirements.txt).

Every function in a stand-in ends the process with a message. So if PyTorch ever called one, the comparison
would stop; it cannot quietly measure something else.

Usage: python cuda_stubs.py
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# The library's file name, and how to know the symbols that PyTorch expects from it: by their version
# ("@..."), or, where the library has no versions, by the start of their names.
STUBS: dict[str, str] = {
    "libcublas.so.13": "@libcublas.so.13",
    "libcublasLt.so.13": "@libcublasLt.so.13",
    "libcudnn.so.9": "@libcudnn.so.9",
    "libcufft.so.12": "@libcufft.so.12",
    "libcufile.so.0": "cuFile",
    "libcusparse.so.12": "@libcusparse.so.12",
    "libcusparseLt.so.0": "cusparseLt",
    "libnccl.so.2": "nccl",
    "libnvrtc.so.13": "@libnvrtc.so.13",
    "libnvshmem_host.so.3": "@NVSHMEM",
}

PROLOGUE = """
#include <stdio.h>
#include <stdlib.h>
static void stop(const char *name) {
    fprintf(stderr, "PyTorch called %s: a CUDA function, which this comparison on the CPU has replaced\\n", name);
    abort();
}
"""


def library_folder() -> Path:
    """Where PyTorch keeps its libraries: found without importing it, which would fail."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        sys.exit("cuda_stubs.py: PyTorch is not installed here: pip install --no-deps -r requirements.txt")
    return Path(spec.origin).parent / "lib"


def tool(*names: str) -> str:
    """The first of the named programs that is installed."""
    for name in names:
        if found := shutil.which(name):
            return found
    sys.exit(f"cuda_stubs.py: needs {' or '.join(names)} (on Debian: apt-get install g++); torch.compile does as well")


def run(command: list[str]) -> str:
    """A program's standard output; its complaint and the end of this one if it fails."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"cuda_stubs.py: {command[0]} failed:\n{result.stderr}")
    return result.stdout


def expected_symbols(folder: Path) -> set[str]:
    """The symbols, as name or name@version, that PyTorch's libraries expect from others."""
    nm = tool("nm")
    symbols: set[str] = set()
    for library in ("libtorch_cpu.so", "libtorch_cuda.so", "libtorch_nvshmem.so", "libtorch_python.so"):
        if (folder / library).exists():
            listing = run([nm, "-D", "--undefined-only", str(folder / library)])
            symbols.update(line.split()[-1] for line in listing.splitlines() if line.strip())
    return symbols


def belongs(symbol: str, mark: str) -> bool:
    """Whether a symbol is one of the library with this mark (see STUBS)."""
    return symbol.endswith(mark) if mark.startswith("@") else symbol.startswith(mark) and "@" not in symbol


def write_stub(folder: Path, name: str, mark: str, symbols: set[str]) -> None:
    """Compiles the stand-in for one library into `folder`."""
    functions = sorted(symbol.split("@")[0] for symbol in symbols if belongs(symbol, mark))
    code = PROLOGUE + "".join(f'void {function}(void) {{ stop("{function}"); }}\n' for function in functions)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "stub.c"
        source.write_text(code)
        command = [tool("gcc", "g++"), "-x", "c", "-shared", "-fPIC", str(source), "-o", str(folder / name)]
        command.append(f"-Wl,-soname,{name}")
        if mark.startswith("@"):
            version = Path(scratch) / "stub.map"
            version.write_text(f"{mark[1:]} {{ global: *; }};\n")
            command.append(f"-Wl,--version-script={version}")
        run(command)


def main() -> None:
    folder = library_folder()
    if not (folder / "libtorch_cuda.so").exists():
        print("this PyTorch is built without CUDA: it needs no stand-in libraries")
        return
    symbols = expected_symbols(folder)
    for name, mark in STUBS.items():
        write_stub(folder, name, mark, symbols)
    print(f"wrote stand-ins for {len(STUBS)} CUDA libraries")


if __name__ == "__main__":
    main()
