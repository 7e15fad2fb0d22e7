"""Engines of TensorRT: built from an ONNX graph, kept in the job's cache, loaded from there the next time.

The network is strongly typed and its Q/DQ nodes alone decide what runs in int8: no precision flag is set and
nothing is calibrated, which is also all that TensorRT 11 knows. An engine is kept under the graph's digest,
in a file that is named after all else that it depends on: TensorRT and its version, the compute capability of
the GPU, the batch and the options. A damaged file is built anew. The timing cache, which holds how long
kernels took and nothing of any graph's weights, is shared by the graphs of one TensorRT on one kind of GPU.
"""

import hashlib
import os
import time

import whole

from runtimes import RefusedError, graphs

OPTIONS = ("hardware_compatible", "version_compatible")
"""Session options, each `0` or `1`."""
_MAGIC = b"edgekd engine 1\n"


def open_engine(trt, path, job, sm):
    """The engine of a file, deserialized, and the nanoseconds that building it took, if it was built."""
    options = _options(trt, job)
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    if options["version_compatible"]:
        runtime.engine_host_code_allowed = True  # such an engine brings TensorRT's lean runtime along
    if not path.endswith(".onnx"):
        with open(path, "rb") as file:
            return _deserialize(trt, runtime, file.read(), path), None
    kept = engine_file(trt, path, job, sm)
    plan = read_kept(kept) if kept else None
    engine = runtime.deserialize_cuda_engine(plan) if plan else None
    if engine is not None:
        return engine, None
    start = time.perf_counter_ns()
    plan = build(trt, path, job, sm, logger)
    build_ns = time.perf_counter_ns() - start
    if kept:
        keep(kept, plan)
    return _deserialize(trt, runtime, plan, path), build_ns


def engine_file(trt, path, job, sm):
    """Where a graph's engine is kept, such as CACHE/DIGEST/tensorrt-10.16.1-sm89-batch1.engine; or None."""
    folder = graphs.cache_folder(job, path)
    if folder is None:
        return None
    parts = [job["runtime"], trt.__version__, "sm%d" % sm, "batch%d" % job["batch_size"]]
    parts += [name for name in OPTIONS if job["session_options"].get(name) == "1"]
    return os.path.join(folder, "-".join(parts) + ".engine")


def read_kept(path):
    """The plan in a file of the cache; None where there is none or it is damaged."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None
    start = len(_MAGIC) + 32
    digest, plan = data[len(_MAGIC) : start], data[start:]
    # TensorRT runs what it deserializes, so that not one byte of a damaged engine may reach it.
    return plan if data.startswith(_MAGIC) and hashlib.sha256(plan).digest() == digest else None


def keep(path, plan):
    """Write a plan to the cache, whole or not at all."""
    whole.write_whole(path, _MAGIC + hashlib.sha256(plan).digest() + bytes(plan))


def build(trt, path, job, sm, logger):
    """Serialized engine of an ONNX graph, for the job's batch and smaller ones where the batch is free."""
    builder = trt.Builder(logger)
    network = builder.create_network(_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        found = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        text = (path, job["runtime"], trt.__version__, graphs.one_line(found))
        raise RefusedError("%s: %s %s cannot load this graph: %s" % text)
    config = builder.create_builder_config()
    _set_batch(builder, network, config, job["batch_size"])
    _set_options(trt, config, _options(trt, job))
    _set_target(trt, config, sm)
    timings = _timing_file(trt, job, sm)
    _load_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        text = (path, job["runtime"], trt.__version__)
        raise RefusedError("%s: %s %s cannot build an engine of this graph on this device" % text)
    _save_timings(config, timings)
    return memoryview(plan)


def _deserialize(trt, runtime, plan, path):
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        text = (path, trt.__version__)
        raise RefusedError("%s: TensorRT %s cannot load this engine; build it on this device" % text)
    return engine


def _flags(trt):
    """TensorRT 10 must be told to type strongly; a later one may have nothing else and no flag for it."""
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if typed is None else 1 << int(typed)


def _set_batch(builder, network, config, batch_size):
    """Free axes go from 1 to the size of the batch, and the kernels are chosen for that size."""
    profile, free = builder.create_optimization_profile(), False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape:
            free = True
            most = tuple(batch_size if size == -1 else size for size in shape)
            profile.set_shape(tensor.name, tuple(1 if size == -1 else size for size in shape), most, most)
    if free:
        config.add_optimization_profile(profile)


def _options(trt, job):
    """The session options as booleans, once it is sure that this TensorRT has them."""
    has = {
        "hardware_compatible": hasattr(trt, "HardwareCompatibilityLevel"),
        "version_compatible": hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"),
    }
    for name in sorted(job["session_options"]):
        value = job["session_options"][name]
        if value not in ("0", "1"):
            raise RefusedError("the session option %s is 0 or 1, found %s" % (name, value))
        if value == "1" and not has[name]:
            raise RefusedError("%s %s makes no %s engines" % (job["runtime"], trt.__version__, name))
    return {name: job["session_options"].get(name) == "1" for name in OPTIONS}


def _set_options(trt, config, options):
    if options["hardware_compatible"]:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def _set_target(trt, config, sm):
    """TensorRT for RTX builds for every GPU that it knows unless it is told which one."""
    capability = getattr(getattr(trt, "ComputeCapability", None), "SM%d" % sm, None)
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)


def _timing_file(trt, job, sm):
    if not job.get("cache") or hasattr(trt, "ComputeCapability"):
        return None  # TensorRT for RTX times no kernels ahead of time: its timing cache does nothing
    name = "%s-%s-sm%d.timing" % (job["runtime"], trt.__version__, sm)
    return os.path.join(job["cache"], name)


def _load_timings(config, path):
    """Start from the kept timings; those of another version or GPU are refused by TensorRT itself."""
    if path is not None:
        config.set_timing_cache(config.create_timing_cache(read_kept(path) or b""), False)


def _save_timings(config, path):
    cache = None if path is None else config.get_timing_cache()
    if cache is not None:
        keep(path, memoryview(cache.serialize()))
