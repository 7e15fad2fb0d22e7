"""A comparison with a search by removing quantizers, where one was asked for or no layer can be seen."""

from __future__ import annotations

from edgekd.conversion.divergence.bisect import as_written, bisect_graph, bisect_runtime
from edgekd.conversion.divergence.chain import Answer
from edgekd.conversion.divergence.question import Question, Runtime
from edgekd.documents.divergence import Bisection, Chain, Finding
from edgekd.errors import ConversionError

_NODE_BY_NODE = Runtime("onnxruntime, as written", as_written)


def searched(answer: Answer, question: Question, *, asked: bool) -> Chain:
    """The chain, with the layers that a runtime computes otherwise, or those that the logits blame.

    Raises:
        EdgekdError: a search was asked for, and the runtime cannot run a graph without some quantizers.
    """
    chain, runtime = answer.chain, question.runtime
    if runtime is not None and chain.links[-1].parts and chain.links[-1].target == runtime.name:
        try:
            search = bisect_runtime(answer.found, answer.x, runtime.run, runtime.name)
        except ConversionError as error:  # the runtime may refuse a graph with half of its quantizers
            note = f"the layers were not searched for: {error.message}"
            return chain.model_copy(update={"notes": (*chain.notes, note)})
        findings = tuple(_named(finding, search, runtime.name) for finding in chain.findings)
        return chain.model_copy(update={"bisection": search, "findings": findings})
    if not asked:
        return chain
    runtime = runtime or _NODE_BY_NODE
    search = bisect_graph(answer.found, answer.x, answer.reference, runtime.run, runtime.name)
    return chain.model_copy(update={"bisection": search})


def _named(finding: Finding, search: Bisection, runtime: str) -> Finding:
    """The finding of a runtime, with the layers that the search names."""
    if finding.layer is not None or not finding.link.endswith(f"-> {runtime}"):
        return finding
    if not search.layers:
        return finding.model_copy(update={"more": ("no few layers make the difference",)})
    what = "weights" if search.part == "weights" else "values" if search.part == "activations" else "codes"
    cause = f"{finding.cause}; with its {what} in float they agree"
    others = (f"so with those of {', '.join(search.layers[1:])}",) if search.layers[1:] else ()
    return finding.model_copy(update={"layer": search.layers[0], "cause": cause, "more": others})
