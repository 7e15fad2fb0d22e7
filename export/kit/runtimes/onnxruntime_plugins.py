"""Execution providers that come in a package of their own and are registered with ONNX Runtime, from 1.23 on.

Such a package is called onnxruntime_NAME or onnxruntime_ep_NAME and tells where its library lies; QNN's does,
from 2.0 on. A session takes these providers by their devices: asked for by name, as the built-in ones are,
they are left out without a word.
"""

import importlib

import onnxruntime

_registered = set()


def register(name):
    """Register the plug-in of a provider's short name, if its package is installed."""
    for package in ("onnxruntime_" + name, "onnxruntime_ep_" + name):
        try:
            plugin = importlib.import_module(package)
        except ImportError:
            continue
        if hasattr(plugin, "get_library_path") and plugin.get_ep_name() not in _registered:
            onnxruntime.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
            _registered.add(plugin.get_ep_name())


def is_plugin(provider):
    """Whether a provider was registered here."""
    return provider in _registered


def add(options, provider, provider_options):
    """Let a session use the first device of a registered provider."""
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == provider]
    options.add_provider_for_devices(devices[:1], provider_options)
