"""One file a runtime, each with `VERSION` and `Session`; importing a file imports its runtime."""
