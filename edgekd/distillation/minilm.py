"""Attention and value relations of the last attention layer, as in MiniLM.

Formula
    A = softmax(Q K^T / sqrt(d)), R = softmax(V V^T / sqrt(d)) of each head, (T, T), d its width
    L = KL(A_t || A_s) + KL(R_t || R_s), averaged over heads, tokens and examples.
Source
    Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
    Transformers", NeurIPS 2020, arXiv 2002.10957.
Shapes
    student_tap and teacher_tap: queries, keys and values in one projection, (B, T, 3 x heads x d), the three
    one after the other and each head by head; any floating dtype, computed in fp32. T and the number of
    heads are the same in both networks, d need not be.
    Four times B x heads x T^2 numbers.
Defaults
    Transformers of timm's, tap `qkv`: weight 1, beside labels and KD. The paper uses no labels: text
    transformers before any task.
Traps
    The projections are read before a norm of the queries and keys and before rotary positions, where a
    network has those.
    A network of one's own names the place in its `taps`; nn.MultiheadAttention has no such place.
    For a student of at most half the teacher's depth and width the paper puts an assistant in between.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.distillation.logits import widen
from edgekd.distillation.setting import Role, Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import RowTerm
from edgekd.documents.terms.features import MiniLMTerm
from edgekd.errors import UsageError


def minilm_rows(student_BTC: Tensor, teacher_BTC: Tensor, *, heads: int) -> Tensor:
    """Divergence of both relations of each example, (B,), float32 or float64, in nats.

    Args:
        student_BTC: (B, T, 3 x heads x d), any floating dtype.
        teacher_BTC: (B, T, 3 x heads x d'); receives no gradient.
        heads: of both networks.
    """
    student, teacher = _relations(student_BTC, heads), _relations(teacher_BTC.detach(), heads)
    divergence_2BHTT = F.kl_div(student, teacher, reduction="none", log_target=True)
    return divergence_2BHTT.sum(dim=(0, 4)).mean(dim=(1, 2))


class MiniLM(RowTerm):
    """Relations of the last attention layer."""

    def __init__(self, section: MiniLMTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist or is no such projection, or tokens or heads differ."""
        super().__init__()
        self.sources = (TEACHER,)
        self.student_taps, self.source_taps = (section.student_tap,), (section.teacher_tap,)
        student, teacher = setting.student, setting.source(TEACHER, wanted_by=section.kind)
        self._heads = _heads(student, section.student_tap, section.student_heads)
        found = _heads(teacher, section.teacher_tap, section.teacher_heads)
        shape, other = student.shapes[section.student_tap], teacher.shapes[section.teacher_tap]
        if self._heads != found or shape[0] != other[0]:
            raise UsageError(
                f"compares attention among the same tokens in as many heads; the student has {self._heads} "
                f"heads and {shape[0]} tokens, {shape}, the teacher {found} and {other[0]}, {other}",
                where=f"term {section.kind}",
                hint="build the student with the teacher's number of heads and patch size: args.num_heads, "
                "args.patch_size",
            )

    def rows(self, step: Step) -> Tensor:
        """`minilm_rows` of the two projections."""
        (student_tap,), (teacher_tap,) = self.student_taps, self.source_taps
        teacher_BTC = step.sources[TEACHER].feature(teacher_tap)
        return minilm_rows(step.student.feature(student_tap), teacher_BTC, heads=self._heads)


def _heads(role: Role, tap: str, given: int | None) -> int:
    """The number of heads of the attention whose projection is tapped.

    Raises:
        UsageError: there is no such tap, the number is not known, or does not divide the width in three.
    """
    shape = role.shape(tap, wanted_by=MiniLMTerm.tag)
    parent = role.paths.get(tap, "").rpartition(".")[0]
    heads = given or getattr(role.network.get_submodule(parent), "num_heads", None)
    if not isinstance(heads, int):
        raise UsageError(
            f"cannot tell the number of heads at '{tap}' of the {role.name}",
            where=f"term {MiniLMTerm.tag}",
            hint=f"{role.name}_heads = ...",
        )
    if len(shape) != 2 or shape[1] % (3 * heads):
        raise UsageError(
            f"reads queries, keys and values of {heads} heads, (tokens, 3 x {heads} x width); "
            f"'{tap}' of the {role.name} is {shape}",
            where=f"term {MiniLMTerm.tag}",
            hint="tap the layer that makes all three at once",
        )
    return heads


def _relations(projected_BTC: Tensor, heads: int) -> Tensor:
    """Logarithms of the attention and the value relations, (2, B, heads, T, T)."""
    split_BT3HD = torch.unflatten(widen(projected_BTC), 2, (3, heads, -1))
    queries, keys, values = split_BT3HD.permute(2, 0, 3, 1, 4)
    products = torch.stack([queries @ keys.transpose(-2, -1), values @ values.transpose(-2, -1)])
    return F.log_softmax(products / math.sqrt(queries.shape[-1]), dim=-1)
