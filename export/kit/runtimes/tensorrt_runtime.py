"""TensorRT 10 and 11 on an NVIDIA GPU: engines are built on the device they run on."""

import functools

import tensorrt

from runtimes import cuda, tensorrt_session

VERSION = tensorrt.__version__
Session = functools.partial(tensorrt_session.Session, tensorrt)


def missing(runtime):
    """Why it cannot be used here and what to try, or None."""
    return cuda.missing()
