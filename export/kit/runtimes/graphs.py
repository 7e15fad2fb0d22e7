"""What every runtime checks of a graph and its inputs, and where it keeps what it builds from the graph."""

import hashlib
import os
import re

from runtimes import RefusedError

# How protobuf writes one entry of a tensor's external data (ONNX's StringStringEntryProto: key 1, value 2)
# whose key is `location`: the key's tag and length, then the value's tag, length (7 bits a byte) and text.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])")


def check_file(path):
    """Refuse a graph that is not there."""
    if not os.path.isfile(path):
        raise RefusedError("%s: there is no such graph" % path)


def only_input(path, names):
    """The name of the one input; other numbers are refused."""
    names = list(names)
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise RefusedError("%s: a graph with one input is expected, found %s" % (path, found))
    return names[0]


def named(path, shapes, feed):
    """A feed as arrays by name, once it is sure that it fits the graph's inputs: their names and shapes.

    A feed that is one array is meant for a graph with one input.
    """
    if not isinstance(feed, dict):
        feed = {only_input(path, shapes): feed}
    if set(feed) != set(shapes):
        text = (path, ", ".join(shapes) or "none", ", ".join(feed) or "none")
        raise RefusedError("%s: takes the inputs %s, found %s" % text)
    for name in shapes:
        check_shape(path, shapes[name], feed[name])
    return feed


def check_shape(path, shape, x_BX):
    """Refuse a batch that does not fit the graph's input; sizes that are no whole number above 0 are free."""
    fixed = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if len(fixed) == x_BX.ndim and all(size in (None, found) for size, found in zip(fixed, x_BX.shape)):
        return
    wanted = ", ".join("any" if size is None else str(size) for size in fixed)
    found = ", ".join(map(str, x_BX.shape))
    raise RefusedError("%s: takes inputs of shape (%s), found (%s)" % (path, wanted, found))


def no_session_options(job, known=()):
    """Refuse session options that the runtime does not have."""
    unknown = sorted(set(job["session_options"]) - set(known))
    if unknown and known:
        what = "knows the session options %s" % ", ".join(known)
    else:
        what = "has no session options"
    if unknown:
        raise RefusedError("%s %s, found %s" % (job["runtime"], what, ", ".join(unknown)))


def one_line(error):
    """An exception's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def sha256(path):
    """Digest of all that a graph is: its file, and the files beside it that hold its weights."""
    with open(path, "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data)
    for name in external_files(data):
        digest.update(name.encode() + b"\0" + _digest(os.path.join(os.path.dirname(path), name)))
    return digest.hexdigest()


def external_files(data):
    """Names of the files that an ONNX graph keeps weights in, as the graph has them."""
    names = set()
    for found in _LOCATION.finditer(data):
        size = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(found.group(1)))
        names.add(data[found.end() : found.end() + size].decode(errors="replace"))
    return sorted(names)


def cache_folder(job, path):
    """Folder for what is built of a graph, made if need be; None where nothing is kept.

    Its name is the graph's digest: a runtime's own key may leave the weights out, and two students of one
    architecture would then share an engine.
    """
    if not job.get("cache"):
        return None
    folder = os.path.join(job["cache"], sha256(path))
    os.makedirs(folder, exist_ok=True)
    return folder


def _digest(path):
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError:
        return b"missing"  # the runtime itself says so, better than we can
    return digest.digest()
