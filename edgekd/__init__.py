"""edgekd: distil a compact int8 student, prove it on the runtime that ships, and gate it in CI."""

__version__ = "0.1.0"
