"""TensorRT for RTX on an NVIDIA GPU: engines are built ahead of time, for its compute capability.

The last step, from the engine to the GPU's own code, is done while the engine is loaded and first run.
"""

import functools

import tensorrt_rtx

from runtimes import cuda, tensorrt_session

VERSION = tensorrt_rtx.__version__
Session = functools.partial(tensorrt_session.Session, tensorrt_rtx)


def missing(runtime):
    """Why it cannot be used here and what to try, or None."""
    return cuda.missing()
