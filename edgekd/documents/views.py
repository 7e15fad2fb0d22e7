"""Names of the views in which a batch can be shown; the task makes them (tasks/views.py)."""

from __future__ import annotations

WEAK = "weak"
"""As the task's augmentation makes it; the view that is trained on and whose logits ship."""
STRONG = "strong"
"""Changed further: colors and erased patches for images, masked stretches for series."""
PRETEXT = ("pretext1", "pretext2", "pretext3")
"""Three transformations that can be told apart: quarter turns of an image, sign and order of a series."""
