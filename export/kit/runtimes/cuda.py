"""The few calls of the CUDA driver that inference needs, through libcuda alone.

The board needs no further package for it. Copies are from and to pageable memory, as an application's arrays
are.
"""

import ctypes

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76
"""CUdevice_attribute: compute capability, major and minor."""


def missing():
    """Why CUDA cannot be used here and what to try, or None."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return (
            "there is no NVIDIA driver here: %s cannot be loaded; try: a machine with an NVIDIA GPU" % LIBRARY
        )
    code = library.cuInit(ctypes.c_uint(0))
    return None if code == 0 else "the NVIDIA driver finds no GPU: cuInit gave %d; try: nvidia-smi" % code


class Cuda:
    """The first visible GPU, with one stream and the events of its timings."""

    def __init__(self):
        self._library = ctypes.CDLL(LIBRARY)
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(0))
        self.stream = stream.value
        self._device = device

    def sm(self):
        """Compute capability, such as 89."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(major), ctypes.c_int(_MAJOR), self._device)
        self._call("cuDeviceGetAttribute", ctypes.byref(minor), ctypes.c_int(_MINOR), self._device)
        return 10 * major.value + minor.value

    def allocate(self, size_bytes):
        """Address of device memory; it lives as long as the process."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, size_bytes)))
        return address.value

    def copy_in(self, address, array):
        """Queue a copy of a contiguous array to the device."""
        host = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), host, *self._size_and_stream(array))

    def copy_out(self, array, address):
        """Queue a copy from the device into a contiguous array."""
        host = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyDtoHAsync_v2", host, ctypes.c_uint64(address), *self._size_and_stream(array))

    def synchronize(self):
        """Wait until the queue is empty."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def event(self):
        """A new event, which can be marked in the queue and then tells when it was reached."""
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        return event.value

    def mark(self, event):
        """Queue an event."""
        self._call("cuEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(self.stream))

    def between_ns(self, first, second):
        """Nanoseconds between two events that were reached, in steps of about 500."""
        taken_ms = ctypes.c_float()
        self._call(
            "cuEventElapsedTime", ctypes.byref(taken_ms), ctypes.c_void_p(first), ctypes.c_void_p(second)
        )
        return round(taken_ms.value * 1e6)

    def _size_and_stream(self, array):
        return ctypes.c_size_t(array.nbytes), ctypes.c_void_p(self.stream)

    def _call(self, name, *arguments):
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError("CUDA: %s: %s" % (name, (text.value or b"error %d" % code).decode()))
