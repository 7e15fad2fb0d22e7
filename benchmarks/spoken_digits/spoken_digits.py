"""Spoken digits as log-mel images (1, 39, 32): `python:spoken_digits:task`.

Needs train.npz and test.npz with x int16 (N, 8000), one second at 8 kHz, and y in data/fsdd: the Free Spoken
Digit Dataset (Jackson et al., CC BY-SA 4.0), clips padded with zeros or cut to one second, recordings 0 to 4
of each speaker and digit as the test. It is no part of edgekd.
A frame is 32 ms under a Hann window, every 25 ms; 32 triangular bands, evenly spaced in mel from 60 to 4,000
Hz. Axes: N clips, S samples, T frames, P bins of the spectrum, F bands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks.make import make_task
from edgekd.tasks.task import Task

RATE_HZ = 8000
FRAME, HOP, BANDS = 256, 200, 32
LOWEST_HZ = 60.0
FLOOR = 1e-9
"""Power, of a full-scale signal's, below which all is silence."""
DATA = Path(__file__).resolve().parents[2] / "data" / "fsdd"

Array = NDArray[Any]


def task(data: str = str(DATA), **settings: Any) -> Task:
    """The task.

    Args:
        data: folder of train.npz and test.npz.
        settings: what edgekd passes on from the recipe.
    """
    parts = {}
    for part in ("train", "test"):
        with np.load(Path(data) / f"{part}.npz", allow_pickle=False) as arrays:
            parts[part] = (log_mel(arrays["x"]), arrays["y"])
    return make_task("spoken digits", train=parts["train"], test=parts["test"], layout="NHW", **settings)


def log_mel(x_NS: Array) -> Array:
    """Samples (N, S) int16 -> log-mel power (N, T, F), float32."""
    bands_PF = mel_bands()
    clips = (_power(clip_S / 2**15) @ bands_PF for clip_S in x_NS)
    return np.stack([np.log(np.maximum(power_TF, FLOOR)) for power_TF in clips]).astype(np.float32)


def mel_bands() -> Array:
    """Weights (P, F) of the bins in each band, a triangle that sums to 1."""
    edges_hz = _hz(np.linspace(_mel(LOWEST_HZ), _mel(RATE_HZ / 2), BANDS + 2))
    bins_hz = np.fft.rfftfreq(FRAME, 1 / RATE_HZ)[:, None]
    left, middle, right = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising, falling = (bins_hz - left) / (middle - left), (right - bins_hz) / (right - middle)
    weights_PF = np.maximum(0, np.minimum(rising, falling))
    normalized_PF: Array = weights_PF / weights_PF.sum(axis=0)
    return normalized_PF


def _power(clip_S: Array) -> Array:
    """Power spectrum of each frame, (T, P); that of a full-scale sine is about 1."""
    frames_TS = np.lib.stride_tricks.sliding_window_view(clip_S, FRAME)[::HOP]
    window_S = np.hanning(FRAME)
    spectrum_TP = np.fft.rfft(frames_TS * window_S) * 2 / window_S.sum()
    power_TP: Array = np.abs(spectrum_TP) ** 2
    return power_TP


def _mel(hz: Array | float) -> Array:
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def _hz(mel: Array) -> Array:
    return 700 * (10 ** (mel / 2595) - 1)
