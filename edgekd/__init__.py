"""edgekd: distil a compact int8 student, prove it on the runtime that ships, and gate it in CI."""

import os

__version__ = "0.1.0"

# ONNX Runtime's wheels send usage reports unless told not to before they are imported; edgekd sends nothing.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
