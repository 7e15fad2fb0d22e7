"""What a graph is fed: batches of a .npy, or the feeds of a .npz, which has an array for each input.

The arrays of a .npz have an axis of feeds before the shape that the graph takes; their batch is the graph's.
"""

import numpy as np
from runtimes import RefusedError

FEED_BYTES = 64 << 20
"""Most that timed feeds take of a .npy: they are cycled, and a small board has little memory."""


def read_feeds(job, most=None, partial=False):
    """The feeds of a job, at most `most` of them: arrays of one batch each, or arrays by name.

    A last batch that is not full is left out, unless it is `partial` that is asked for.
    """
    path = job.get("inputs")
    if not path:
        raise RefusedError("the mode %s needs inputs" % job["mode"])
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(found, np.ndarray):
        return _batches(path, found, job["batch_size"], most, partial)
    with found:
        return _named(path, {name: found[name] for name in found.files}, most)


def _batches(path, x_NX, size, most, partial):
    if x_NX.ndim < 1 or len(x_NX) == 0:
        raise RefusedError("%s: holds no inputs" % path)
    if len(x_NX) < size and not partial:
        raise RefusedError("%s: holds %d inputs, the batch takes %d" % (path, len(x_NX), size))
    stop = len(x_NX) if partial else len(x_NX) // size * size
    starts = range(0, stop, size)[:most]
    if partial:  # nothing is timed, and the file may be larger than the memory
        return [np.ascontiguousarray(x_NX[first : first + size]) for first in starts]
    fit = max(1, FEED_BYTES // max(1, x_NX[:size].nbytes))
    # Copies: a mapped file would be read from the disk inside the timed calls.
    return [np.array(x_NX[first : first + size], order="C") for first in starts[:fit]]


def _named(path, arrays, most):
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) > 1 or 0 in counts:
        raise RefusedError("%s: its arrays do not have the same number of feeds" % path)
    count = counts.pop() if counts else 1  # a graph without inputs is fed nothing, once
    return [
        {name: np.array(array[index], order="C") for name, array in arrays.items()}  # a scalar stays one
        for index in range(count)[:most]
    ]
