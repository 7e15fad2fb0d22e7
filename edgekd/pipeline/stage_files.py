"""Names of files that a stage leaves for others, those without torch among them."""

from __future__ import annotations

RESULT = "result.json"
"""How a stage of learning went; its `flags` are what the user should know, a line each."""
ANSWERS = "answers.npy"
"""Logits of a black-box teacher for the rows of the training file, (N, K) float32."""
TEST_ANSWERS = "test-answers.npy"
"""Its logits for the test examples, where they are known."""
MEMBERS = "members.json"
"""What each network of an ensemble is worth."""
VALIDATION = "validation.json"
"""What a quantized student is worth on validation, beside the fp32 student: top1, fp32_top1, kl, count."""
