"""scikit-learn's bundled digits: 1,797 real 8x8 images with 17 levels of gray (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

import numpy as np

from edgekd.documents.recipe import DigitsTask
from edgekd.errors import MissingError
from edgekd.tasks.make import make_task
from edgekd.tasks.split import stratified_split
from edgekd.tasks.task import Task


def digits_task(section: DigitsTask, *, seed: int) -> Task:
    """The digits as uint8 (N, 1, 8, 8), raw values 0 to 16, split into training, validation and test.

    Raises:
        MissingError: scikit-learn is not installed.
        DataError: the fractions leave a class without training examples, or the augmentation does not fit.
    """
    try:
        from sklearn.datasets import load_digits  # an extra, and slow to import
    except ImportError as error:
        raise MissingError(
            f"scikit-learn cannot be imported: {error}", hint="pip install 'edgekd[train]'"
        ) from error
    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    rest, held = stratified_split(y, section.test_fraction, seed)
    return make_task(
        "digits",
        train=(x[rest], y[rest]),
        test=(x[held], y[held]),
        layout="NHW",
        validation_fraction=section.validation_fraction,
        seed=seed,
        augmentation=section.augmentation,
    )
