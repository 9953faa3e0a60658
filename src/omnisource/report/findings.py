"""What stages found in data that a reader should know, in sentences."""

from collections.abc import Iterator, Mapping
from typing import Any

from omnisource.curate.trust import MOST_TRUST

_ENDS = 6  # classes of the highest weights, and of the lowest, that are told


def cautions(counts: Mapping[str, Any]) -> list[str]:
    """Sentences about target samples in the record of `probe` that make accuracies look better than they are."""
    files, groups = counts.get("in_two_splits"), counts.get("of_groups_in_two_splits")
    found = [f"{files:,} test or val samples are files that are also trained on"] if files else []
    if groups:
        found.append(f"{groups:,} test or val samples are of groups (a film, a place) that are also trained on")
    if copies := counts.get("copies_in_two_splits"):
        found.append(f"{copies:,} training clips are copies of test or val clips, encoded anew")
    return [f"{what}, so that part of the accuracies is memory." for what in found]


def findings(counts: Mapping[str, Any]) -> list[str]:
    """Sentences about the temperatures, trust in queries and class weights in the record of a selection."""
    return [*_temperatures(counts), *_trust(counts), *_weights(counts)]


def _temperatures(counts: Mapping[str, Any]) -> Iterator[str]:
    for teacher, units in counts.get("temperatures", {}).items():
        for unit, found in units.items():
            value, held_out = f"{found['T']:.2f}", f"{found['samples']:,} held-out target samples"
            if "right" in found:
                yield (
                    f"{teacher}, {unit}s: right for {found['right']:.0%} of {held_out}, on average "
                    f"{found['sure_before']:.0%} sure of the web; temperature {value} makes that "
                    f"{found['sure_after']:.0%}"
                )
            else:
                yield (
                    f"{teacher}, {unit}s: temperature {value} fits {held_out} best (negative log-likelihood "
                    f"{found['nll_before']:.2f} before, {found['nll_after']:.2f} after)"
                )


def _trust(counts: Mapping[str, Any]) -> Iterator[str]:
    for source, share in counts.get("query_trust", {}).items():
        sure = share >= MOST_TRUST
        most = (
            "; so much, the most there is, is also found where the teacher is too unsure to contradict" if sure else ""
        )
        yield f"queries of {source}: right for {share:.0%}, by how they and the teacher agree{most}"


def _weights(counts: Mapping[str, Any]) -> Iterator[str]:
    for source, weights in counts.get("class_weights", {}).items():
        listed = [f"{label} x {w:.2f}" for label, w in sorted(weights.items(), key=lambda item: -item[1])]
        if len(listed) > 2 * _ENDS:
            listed[_ENDS:-_ENDS] = [f"{len(listed) - 2 * _ENDS} between"]
        yield f"{source}: classes weighted towards their shares in the target: {', '.join(listed)}"
