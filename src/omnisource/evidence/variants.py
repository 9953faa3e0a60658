"""The questions of the paper's tables (section 5 and its ablations), each as settings that differ from the default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omnisource.recipe import ALL, TARGET_ONLY, Recipe


@dataclass(frozen=True)
class Variant:
    """One kind of training: from which sources, and what it changes in the recipe (dotted keys)."""

    name: str
    question: str
    sources: tuple[str, ...]  # web sources; the target is always there
    set: Mapping[str, Any] = field(default_factory=dict)
    against: str = TARGET_ONLY  # the variant from which its gain is counted
    paper: str = ""  # what the paper found for the same question


def variants_of(recipe: Recipe, few: bool = False) -> list[Variant]:
    """The variants that a track's sources allow; `few`: without the ablations."""
    web = tuple(recipe.web_sources)
    images = tuple(name for name in web if recipe.sources[name].format == "image")
    untrimmed = tuple(name for name in web if recipe.sources[name].format == "untrimmed")
    helps, filters = "does each source help, do several help more?", "what does filtering contribute?"
    found = [
        Variant(TARGET_ONLY, helps, (), paper="73.8 (3D, ImageNet)"),
        Variant("target-only, 2x epochs", helps, (), {"student.epochs": 40}),
        Variant("target-only, 3x epochs", helps, (), {"student.epochs": 60}),
        *(Variant(f"+{name}", helps, (name,)) for name in web if len(web) > 1),
        Variant(ALL, helps, web, paper="+3.0 (2D), +2.8 (3D)"),
    ]
    if few:
        return found

    def ask(question: str, name: str, paper: str = "", sources: tuple[str, ...] = web, **changes: Any) -> None:
        settings = {key.replace("__", "."): value for key, value in changes.items()}
        against = ALL if sources == web else f"+{sources[0]}"
        found.append(Variant(name, question, sources, settings, against, paper))

    ask(filters, "unfiltered", "unfiltered web images hurt", select__rule="all")
    for threshold in (0.1, 0.5, 0.7):
        ask(filters, f"agree, t = {threshold}", select__threshold=threshold)
    ask(filters, "query class's probability, t = 0.1", select__rule="query", select__threshold=0.1)
    ask(filters, "teacher's own label, t = 0.6", select__rule="teacher", select__label="teacher", select__threshold=0.6)
    ask(filters, "soft labels", select__label="soft")
    ask(filters, "soft labels, unfiltered", select__rule="all", select__label="soft")
    beyond = "what goes beyond the paper?"
    together = {"select__query_evidence": True}
    ask(beyond, "query as evidence, agree", **together)
    ask(beyond, "query as evidence, p >= 0.5", **together, select__rule="query", select__threshold=0.5)
    ask(beyond, "query as evidence, soft, p >= 0.3", **together, select__rule="query", select__label="soft")
    ask(beyond, "query as evidence, soft, all", **together, select__rule="all", select__label="soft")
    ask(beyond, "averaged weights (EMA 0.99)", student__ema=0.99)
    balance = "how are target and web balanced?"
    for ratio in (0.25, 0.5, 2.0):
        ask(balance, f"web 1 : {ratio}", "2D 1:1, 3D 1:1 best", student__batch__web_ratio=ratio)
    for power in (0.5, 0.2, 0.0):
        ask(
            balance,
            f"classes resampled by N^{power}",
            "0.2 best of 2D: 71.5 -> 72.0",
            student__resample={name: {"power": power} for name in web},
        )
    mixing = "does mixup help?"
    paper = "72.9 -> 73.3 from scratch; ImageNet 73.8 -> 73.6"
    ask(mixing, "cross-dataset mixup", paper, student__mixup={"kind": "cross", "alpha": 0.2})
    ask(mixing, "mixup within a source", student__mixup={"kind": "within", "alpha": 0.2})
    if untrimmed:
        asked = "which frames of untrimmed videos?"
        sources = untrimmed if len(web) > 1 else web
        ask(asked, "positives only", "71.7 with negatives; positives alone worse", sources,
            student__snippets={"kind": "positives-only"})  # fmt: skip
        ask(asked, "random frames", "", sources, student__snippets={"kind": "random"})
    if images:
        ask("does the label's certainty matter?", "label smoothing 0.1", student__label_smoothing=0.1)
    return found
