"""Energy of one inference, from a log of one process."""

from __future__ import annotations

from edgekd.documents.run_log import GraphLog, RunLog


def joules_per_inference(log: RunLog) -> float | None:
    """Joules, of what `log.energy.source` names, idle not subtracted; None where it could not be read.

    In the mode paced the pauses count: their energy belongs to the rate.
    """
    if log.energy is None or log.energy.joules is None or len(log.graphs) != 1:
        return None
    count = inferences_of(log.graphs[0])
    return log.energy.joules / count if count else None


def inferences_of(graph: GraphLog) -> int:
    """Inferences while it was timed: the mode latency starts each turn with one that is not timed."""
    return graph.inferences or len(graph.latency_ns) + len(set(graph.block_of_sample))
