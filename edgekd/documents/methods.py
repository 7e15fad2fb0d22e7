"""The methods of the literature by name: the objective of each as it was published.

A method is a whole objective, `label_weight` and all, and not a term; its card is that of the term that gives
it its name. The values are those for CIFAR-100 in 240 epochs, or for the data set of the method's paper, with
other values for certain pairs of networks where the authors have them. `edgekd methods` shows the methods,
`edgekd compare` trains them.
"""

from __future__ import annotations

from typing import Any

from edgekd.documents.method import Method, Pair
from edgekd.documents.recipe import Distillation
from edgekd.documents.terms import KDTerm, Term
from edgekd.documents.terms.classes import NDTerm, USKDTerm
from edgekd.documents.terms.contrastive import CRDTerm
from edgekd.documents.terms.features import (
    ATTerm,
    FitNetTerm,
    MiniLMTerm,
    PKTTerm,
    ReviewKDTerm,
    RKDTerm,
    SPTerm,
)
from edgekd.documents.terms.logits import DISTTerm, DKDTerm, JSTerm, MEALTerm, NKDTerm
from edgekd.documents.terms.own import ExitsTerm, PSKDTerm
from edgekd.documents.terms.pretext import HSAKDTerm, LSSKDTerm, SLATerm, SSKDTerm
from edgekd.documents.terms.weighting import PADTerm


def _objective(label_weight: float, *terms: Term) -> Distillation:
    return Distillation(label_weight=label_weight, terms=terms)


def _pair(teacher: str, student: str, **changes: Any) -> Pair:
    return Pair(teacher, student, changes)


_KD = KDTerm(weight=0.9, temperature=4.0)
_KD_OF_ND = KDTerm(weight=1.0, temperature=4.0, ramp_epochs=20.0)
_WARMED = 120
"""Epochs of PAD's warm-up: half of a training, as in the configuration of its port."""

_LABELS = (Method("ce", "labels", _objective(1.0), card="labels"),)

_LOGITS = (
    Method("kd", "logits", _objective(0.1, _KD), "kd"),
    Method(
        "kd-ls",
        "logits",
        _objective(0.1, KDTerm(weight=9.0, temperature=2.0, standardize=True)),
        "kd",
        "standardized logits",
        (_pair("vgg13", "*", temperature=3.0), _pair("wrn-40-2", "mobilenetv2", temperature=3.0)),
    ),
    Method("kd-only", "logits", _objective(0.0, KDTerm(weight=1.0, temperature=1.0)), "kd", "without labels"),
    Method("guided", "logits", _objective(0.5, KDTerm(weight=0.5, temperature=1.0)), "kd", card="guidance"),
    Method("js", "logits", _objective(0.0, JSTerm(kind="js")), "js"),
    Method(
        "dkd",
        "logits",
        _objective(1.0, DKDTerm(kind="dkd")),
        "dkd",
        pairs=(
            _pair("resnet56", "resnet20", beta=2.0),
            _pair("resnet110", "resnet32", beta=2.0),
            _pair("vgg13", "*", beta=6.0),
            _pair("wrn-40-2", "wrn-*", beta=6.0),
        ),
    ),
    Method(
        "dkd-ls",
        "logits",
        _objective(1.0, DKDTerm(kind="dkd", alpha=9.0, beta=81.0, standardize=True)),
        "dkd",
        "standardized logits",
    ),
    Method("dist", "logits", _objective(1.0, DISTTerm(kind="dist")), "dist"),
    Method("nkd", "logits", _objective(1.0, NKDTerm(kind="nkd", gamma=3.5, temperature=3.0)), "nkd"),
    Method("meal", "logits", _objective(0.0, MEALTerm(kind="meal")), "meal"),
    Method(
        "meal-d",
        "logits",
        _objective(0.0, MEALTerm(kind="meal", discriminator=True)),
        "meal",
        "with the discriminator",
    ),
)

_FEATURES = (
    Method("fitnet", "features", _objective(1.0, FitNetTerm(kind="fitnet")), "fitnet"),
    Method("at", "features", _objective(1.0, ATTerm(kind="at")), "at"),
    Method(
        "nd",
        "features",
        _objective(1.0, _KD_OF_ND, NDTerm(kind="nd")),
        "nd",
        "beside KD",
        (
            Pair("resnet32x4", "resnet8x4", {"kd.weight": 3.5}),
            Pair("resnet32x4", "shufflenetv1", {"kd.weight": 2.5, "weight": 1.5}),
            Pair("resnet32x4", "shufflenetv2", {"kd.weight": 4.0, "weight": 0.5}),
            Pair("wrn-40-2", "wrn-40-1", {"weight": 1.5}),
            Pair("*resnet50*", "mobilenetv2", {"kd.weight": 3.0, "weight": 0.5}),
        ),
    ),
    Method(
        "reviewkd",
        "features",
        _objective(1.0, ReviewKDTerm(kind="reviewkd")),
        "reviewkd",
        pairs=(
            _pair("*", "shufflenetv2", weight=8.0),
            _pair("resnet56", "resnet20", weight=0.6),
            _pair("resnet110", "resnet32", weight=1.0),
            _pair("*resnet50*", "mobilenetv2", weight=30.0),
        ),
    ),
)

_RELATIONS = (
    Method("sp", "relations", _objective(1.0, SPTerm(kind="sp")), "sp"),
    Method("rkd", "relations", _objective(1.0, RKDTerm(kind="rkd")), "rkd"),
    Method("pkt", "relations", _objective(1.0, PKTTerm(kind="pkt")), "pkt"),
    Method("minilm", "relations", _objective(0.1, _KD, MiniLMTerm(kind="minilm")), "minilm", "beside KD"),
)

_CONTRASTIVE = (
    Method("crd", "contrastive", _objective(1.0, CRDTerm(kind="crd")), "crd"),
    Method(
        "crd-kd",
        "contrastive",
        _objective(1.0, CRDTerm(kind="crd"), KDTerm(weight=1.0, temperature=4.0)),
        "crd",
        "beside KD",
    ),
)

_SELF_SUPERVISED = (
    Method("sskd", "self-supervised", _objective(0.1, _KD, SSKDTerm(kind="sskd")), "sskd"),
    Method("hsakd", "self-supervised", _objective(1.0, HSAKDTerm(kind="hsakd")), "hsakd"),
)

_WEIGHTING = (
    Method("pad", "weighting", _objective(1.0, PADTerm(kind="pad", warmup_epochs=_WARMED)), "pad"),
    Method(
        "pad-kd",
        "weighting",
        _objective(0.1, PADTerm(kind="pad", of=KDTerm(), weight=0.9, warmup_epochs=_WARMED)),
        "pad",
        "over KD",
    ),
    *(
        Method(
            f"pad-{weighting}",
            "weighting",
            _objective(1.0, PADTerm(kind="pad", weighting=weighting, warmup_epochs=0)),
            "pad",
            f"the baseline '{weighting}'",
        )
        for weighting in ("discard", "softmax", "polynomial")
    ),
)

_TEACHER_FREE = (
    Method("lsskd", "teacher-free", _objective(1.0, LSSKDTerm(kind="lsskd")), "lsskd"),
    Method("sla", "teacher-free", _objective(1.0, SLATerm(kind="sla")), "sla"),
    Method("pskd", "teacher-free", _objective(0.0, PSKDTerm(kind="pskd")), "pskd"),
    Method("exits", "teacher-free", _objective(1.0, ExitsTerm(kind="exits")), "exits"),
    Method(
        "uskd", "teacher-free", _objective(1.0, USKDTerm(kind="uskd", alpha=0.1, beta=0.1, mu=0.1)), "uskd"
    ),
)

METHODS: dict[str, Method] = {
    method.name: method
    for group in (
        *(_LABELS, _LOGITS, _FEATURES, _RELATIONS),
        *(_CONTRASTIVE, _SELF_SUPERVISED, _WEIGHTING, _TEACHER_FREE),
    )
    for method in group
}
"""Every method, in the order in which they are listed."""

POLICIES: dict[str, str] = {
    "teacher": "documents/teacher.py",
    "random-teacher": "training/random_teacher.py",
    "ensemble": "training/ensemble.py",
    "transferability": "training/transferability.py",
    "black-box": "tasks/answers.py",
    "class-order": "training/class_order.py",
    "unlabeled": "tasks/unlabeled.py",
    "fraction": "tasks/fraction.py",
    "monitor": "training/monitor.py",
}
"""Who teaches, on which examples, and what is watched: name -> the module whose docstring is the card."""
