"""Records the names of a published TensorRT bindings wheel: python record.py WHEEL.whl ...

A bindings wheel holds the Python module and none of TensorRT's libraries. The module asks those libraries for
nine functions, and calls none of them while it is imported: empty stand-ins of the same names, compiled here
with gcc, let it be imported, and its classes then say what they have. Nothing of TensorRT is run.

    pip download --no-deps tensorrt-cu12-bindings==10.16.1.11
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    *("getPluginRegistry", "getBuilderPluginRegistry", "initLibNvInferPlugins"),
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
CLASSES = (
    *("Builder", "INetworkDefinition", "OnnxParser", "ParserError", "IBuilderConfig", "IOptimizationProfile"),
    *("Runtime", "ICudaEngine", "IExecutionContext", "ITimingCache", "IHostMemory", "ILogger", "Logger"),
    *("ITensor", "ILayer", "IElementWiseLayer", "IActivationLayer", "Dims"),
)
ENUMS = (
    *("NetworkDefinitionCreationFlag", "HardwareCompatibilityLevel", "BuilderFlag", "TensorIOMode"),
    *("LayerType", "DataType"),
)
"""The classes and enumerations that edgekd has to do with; of all others the name alone is kept."""


def main() -> None:
    """Write FOLDER/VERSION.json for each wheel."""
    for name in sys.argv[1:]:
        wheel = Path(name)
        version = wheel.name.split("-")[1]
        with tempfile.TemporaryDirectory() as folder:
            names = read_names(wheel, version, Path(folder))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        table = {"wheel": wheel.name, "sha256": digest, "version": version, **names}
        path = Path(__file__).with_name(f"{version}.json")
        path.write_text(json.dumps(table, indent=1) + "\n")
        print(path)


def read_names(wheel: Path, version: str, folder: Path) -> dict:
    """Unpack a wheel beside stand-ins for its libraries, import it in a fresh process and ask it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    source = folder / "stand_in.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for library in LIBRARIES:
        soname = f"lib{library}.so.{version.split('.')[0]}"
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{soname}",
            "-o",
            str(folder / soname),
            str(source),
        ]
        subprocess.run(command, check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", ASK]
    given = json.dumps({"classes": CLASSES, "enums": ENUMS})
    done = subprocess.run(command, env=environment, input=given, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    for members in found["classes"].values():
        for name, text in members.items():
            members[name] = signature(text)
    return found


def signature(text: str) -> str:
    """The first signature in pybind11's words on a method, names of modules left out; or nothing."""
    lines = [re.sub(r"^1\. ", "", line) for line in text.splitlines() if "->" in line and "(" in line]
    return re.sub(r"\b\w+(\.\w+)*\.(?=\w)", "", lines[0]) if lines else ""


# The folder's own __init__ adds a few names in Python; it looks for the libraries, which it finds here.
ASK = """
import json, sys
given = json.load(sys.stdin)
import tensorrt_bindings as trt
def members(owner):
    public = (name for name in dir(owner) if not name.startswith("_"))
    return {name: getattr(owner, name).__doc__ or "" for name in public}
print(json.dumps({
    "names": [name for name in dir(trt) if not name.startswith("_")] + ["__version__"],
    "enums": {name: list(getattr(trt, name).__members__) for name in given["enums"] if hasattr(trt, name)},
    "classes": {name: members(getattr(trt, name)) for name in given["classes"] if hasattr(trt, name)},
}))
"""


if __name__ == "__main__":
    main()
