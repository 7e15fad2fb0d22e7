"""The sections of the distillation terms; a section chooses its term by `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Tag

from edgekd.documents.terms.base import TermSection
from edgekd.documents.terms.choice import by_kind
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
from edgekd.documents.terms.logits import DISTTerm, DKDTerm, JSTerm, KDTerm, MEALTerm, NKDTerm
from edgekd.documents.terms.own import ExitsTerm, PSKDTerm
from edgekd.documents.terms.pretext import HSAKDTerm, LSSKDTerm, SLATerm, SSKDTerm
from edgekd.documents.terms.python_term import PythonTerm
from edgekd.documents.terms.weighting import PADTerm

__all__ = ["CRDTerm", "ExitsTerm", "JSTerm", "KDTerm", "PADTerm", "PSKDTerm", "Term", "TermSection"]

SECTIONS: tuple[type[TermSection], ...] = (
    KDTerm,
    JSTerm,
    DKDTerm,
    DISTTerm,
    NKDTerm,
    MEALTerm,
    USKDTerm,
    NDTerm,
    FitNetTerm,
    ATTerm,
    SPTerm,
    RKDTerm,
    PKTTerm,
    ReviewKDTerm,
    MiniLMTerm,
    CRDTerm,
    PADTerm,
    PSKDTerm,
    ExitsTerm,
    SSKDTerm,
    HSAKDTerm,
    LSSKDTerm,
    SLATerm,
    PythonTerm,
)
"""Every term's section, in the order in which `edgekd methods list` shows them; the user's own, which is no
method of the literature, comes last."""


Term = Annotated[
    Annotated[KDTerm, Tag("kd")]
    | Annotated[JSTerm, Tag("js")]
    | Annotated[FitNetTerm, Tag("fitnet")]
    | Annotated[ATTerm, Tag("at")]
    | Annotated[SPTerm, Tag("sp")]
    | Annotated[RKDTerm, Tag("rkd")]
    | Annotated[PKTTerm, Tag("pkt")]
    | Annotated[ReviewKDTerm, Tag("reviewkd")]
    | Annotated[MiniLMTerm, Tag("minilm")]
    | Annotated[CRDTerm, Tag("crd")]
    | Annotated[PADTerm, Tag("pad")]
    | Annotated[PSKDTerm, Tag("pskd")]
    | Annotated[ExitsTerm, Tag("exits")]
    | Annotated[DKDTerm, Tag("dkd")]
    | Annotated[DISTTerm, Tag("dist")]
    | Annotated[NKDTerm, Tag("nkd")]
    | Annotated[MEALTerm, Tag("meal")]
    | Annotated[USKDTerm, Tag("uskd")]
    | Annotated[NDTerm, Tag("nd")]
    | Annotated[SSKDTerm, Tag("sskd")]
    | Annotated[HSAKDTerm, Tag("hsakd")]
    | Annotated[LSSKDTerm, Tag("lsskd")]
    | Annotated[SLATerm, Tag("sla")]
    | Annotated[PythonTerm, Tag("python")],
    by_kind(SECTIONS),
]
