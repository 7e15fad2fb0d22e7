"""The digest of a task, under which what was learned from it is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from edgekd.documents.common import InputSpec
from edgekd.tasks.task import Split


def fingerprint(splits: Sequence[Split], classes: Sequence[str], spec: InputSpec) -> str:
    """Digest of all that a result can depend on."""
    digest = hashlib.sha256(json.dumps([list(classes), spec.model_dump(mode="json")]).encode())
    for split in splits:
        digest.update(str((split.x.shape, split.x.dtype.name)).encode())
        digest.update(np.ascontiguousarray(split.x).data)
        digest.update(np.ascontiguousarray(split.y).data)
        if split.rows is not None:
            digest.update(np.ascontiguousarray(split.rows).data)
    return digest.hexdigest()
