"""The questions of the paper's tables (section 5 and its ablations), each as settings that differ from the default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnisource.networks import is_spatial, read_meta
from omnisource.recipe import ALL, TARGET_ONLY, Recipe

BELIEVED = "query as evidence, soft, all"
EVIDENCE = f"{BELIEVED}, weighted by confidence"  # what `omnisource init` writes where there are queries
INFLATED = "inflated from ImageNet"
_CONSENSUS = "student.network.options.consensus"
_EMA, _SMOOTHING = "averaged weights (EMA 0.99)", "label smoothing 0.1"
_WITHIN = {"student.mixup": {"kind": "within", "alpha": 0.2}}
_SNIPPETS = {
    "positive-negative": "one positive frame, the others negative",
    "positives-only": "positives only",
    "random": "random frames",
}
_INFLATION = {  # camera mode -> what the paper found (SlowOnly, ImageNet, + Google images)
    "still": "74.1; one Gaussian of homographies 74.5, without images 73.8",
    "translate-random": "73.7",
    "translate-constant": "73.8",
    "homography": "74.5",
    "homography-per-class": "74.4",
}
_PUBLISHED = {  # start of the student -> target alone, gains of a format (images: both sources), and of everything
    "2D": {TARGET_ONLY: "70.6", "image": "+1.4", "clip": "+1.4", "untrimmed": "+1.1", ALL: "+3.0"},
    "3D, scratch": {TARGET_ONLY: "72.9", "image": "+1.9", "clip": "+2.9", "untrimmed": "+1.9", ALL: "+3.9"},
    "3D, ImageNet": {TARGET_ONLY: "73.8", "image": "+1.4", "clip": "+1.4", "untrimmed": "+0.7", ALL: "+2.8"},
    "3D, IG-65M": {TARGET_ONLY: "82.6", ALL: "+1.0"},
}


@dataclass(frozen=True)
class Variant:
    """One kind of training: from which sources, and what it changes in the recipe (dotted keys)."""

    name: str
    question: str
    sources: tuple[str, ...]  # web sources; the target is always there
    set: Mapping[str, Any] = field(default_factory=dict)
    against: str = TARGET_ONLY  # the variant from which its gain is counted
    paper: str = ""  # what the paper found for the same question
    again: bool = False  # the student teaches another one, which is tested


def _published(start: str, trained_on: str) -> str:
    """The paper's figure on Kinetics-400 for such a student, or nothing where it has none."""
    found = _PUBLISHED[start].get(trained_on)
    return f"{found} ({start})" if found else ""


def _from_imagenet(recipe: Recipe, network: str, file: Path) -> dict[str, Any]:
    """A student that starts from the ImageNet weights of a 2D ResNet."""
    start: dict[str, Any] = {"student.network": {"name": network, "init": {"imagenet": str(file)}}}
    start["student.epochs"] = recipe.student.epochs / 4  # from scratch it takes four times the demo's
    start["student.optimiser.lr"] = recipe.student.optimiser.lr / 10  # as the paper's, for weights that know something
    if meta := read_meta(file):  # else the weights are of a foreign layout, and see pixels as recipes do
        start |= {"student.input.mean": list(meta.mean), "student.input.std": list(meta.std)}
    return start


def _alone(recipe: Recipe, few: bool, inflated: tuple[str, Path] | None) -> list[Variant]:
    """Rows of a recipe without web data: how strong its target can be made before any web data come."""
    epochs = recipe.student.epochs
    changes: dict[str, Mapping[str, Any]] = {"2x epochs": {"student.epochs": 2 * epochs}}
    if inflated and not is_spatial(recipe.student.network.name):
        changes[INFLATED] = _from_imagenet(recipe, *inflated)
    if not few:
        changes |= {"3x epochs": {"student.epochs": 3 * epochs}, "mixup": _WITHIN, _EMA: {"student.ema": 0.99}}
        changes |= {_SMOOTHING: {"student.label_smoothing": 0.1}} if not recipe.student.label_smoothing else {}
    question = "how strong is the target alone?"
    rows = [Variant(f"{TARGET_ONLY}, {name}", question, (), change) for name, change in changes.items()]
    return [Variant(TARGET_ONLY, question, ()), *rows]


def variants_of(
    recipe: Recipe, few: bool = False, inflated: tuple[str, Path] | None = None, queried: bool | None = None
) -> list[Variant]:
    """The variants that a track's sources allow; without web sources, what may strengthen the target alone.

    Args:
        recipe: of the track.
        few: without the ablations.
        inflated: a 3D network, and the file of a 2D ResNet's ImageNet weights from which it can start: a 3D student
            then starts from there, too.
        queried: whether somebody searched for the web data by class; None: unless all of them are files alone.
    """
    web = tuple(recipe.web_sources)
    if not web:
        return _alone(recipe, few, inflated)
    images, untrimmed = (
        tuple(name for name in web if recipe.sources[name].format == form) for form in ("image", "untrimmed")
    )
    spatial, epochs = is_spatial(recipe.student.network.name), recipe.student.epochs
    start_of = "2D" if spatial else "3D, IG-65M" if recipe.student.network.init.checkpoint else "3D, scratch"
    helps, filters = "does each source help, do several help more?", "what does filtering contribute?"
    rule, least, label, evidence = "select.rule", "select.threshold", "select.label", "select.query_evidence"
    if queried is None:
        queried = any(recipe.sources[name].layout != "files" for name in web)
    plain: dict[str, Any] = {}
    if recipe.select.query_evidence:  # which the paper's filters do not know; what people decided stays
        unasked: dict[str, Any] = {} if queried else {rule: "teacher", least: 0.6, label: "teacher"}
        plain = {"select": {"overrides": recipe.select.overrides}, **unasked, "student.confidence_weighted": False}
    found = [
        Variant(TARGET_ONLY, helps, (), paper=_published(start_of, TARGET_ONLY)),
        Variant("target-only, 2x epochs", helps, (), {"student.epochs": 2 * epochs}),
        *(
            Variant(f"+{name}", helps, (name,), paper=_published(start_of, recipe.sources[name].format))
            for name in web
            if len(web) > 1
        ),
        Variant(ALL, helps, web, paper=_published(start_of, ALL)),
        *([Variant("the paper's filter", filters, web, plain, ALL)] if plain else []),
        Variant("unfiltered", filters, web, plain | {rule: "all"}, ALL, "unfiltered web images hurt"),
    ]
    start = _from_imagenet(recipe, *inflated) if inflated and not spatial else {}
    if start:
        alone, paper = f"{TARGET_ONLY}, {INFLATED}", _published("3D, ImageNet", ALL)
        found.append(Variant(alone, helps, (), start, paper=_published("3D, ImageNet", TARGET_ONLY)))
        found.append(Variant(f"{ALL}, {INFLATED}", helps, web, start, alone, paper))
    if few:
        return found

    def ask(question: str, name: str, changes: Mapping[str, Any], paper: str = "", of: tuple[str, ...] = web) -> None:
        found.append(Variant(name, question, of, changes, ALL if of == web else f"+{of[0]}", paper))

    found.append(Variant("target-only, 3x epochs", helps, (), {"student.epochs": 3 * epochs}))
    for name in web if len(web) > 1 else ():
        ask(filters, f"+{name}, unfiltered", plain | {rule: "all"}, of=(name,))
    for threshold in (0.1, 0.3, 0.5, 0.7) if queried else ():
        if plain or (recipe.select.rule, recipe.select.threshold) != ("agree", threshold):
            ask(filters, f"agree, t = {threshold}", plain | {rule: "agree", least: threshold})
    ask(filters, "query class's probability, t = 0.1", plain | {rule: "query", least: 0.1})
    ask(filters, "teacher's own label, t = 0.6", plain | {rule: "teacher", label: "teacher", least: 0.6})
    ask(filters, "soft labels", plain | {label: "soft"})
    ask(filters, "soft labels, unfiltered", plain | {rule: "all", label: "soft"})
    balance = "how are target and web balanced?"
    for ratio in (0.25, 0.5, 2.0):
        ask(balance, f"web 1 : {ratio}", {"student.batch.ratio": {}, "student.batch.web_ratio": ratio})
    for power in (0.5, 0.2, 0.0):
        powers = {"student.resample": {name: {"power": power} for name in web}}
        ask(balance, f"classes resampled by N^{power}", powers, "2D: none 71.5, 0.2 72.0")
        ask(balance, f"unfiltered, classes resampled by N^{power}", powers | plain | {rule: "all"})
    clipped = {"student.resample": {name: {"clip": "mean"} for name in web}}
    ask(balance, "classes clipped at their mean size", clipped, "2D: none 71.5, clipped at 5,000 71.9")
    mixing = "does mixup help?"
    paper = "3D from scratch with Google images 74.1 -> 74.4; without web data 72.9 -> 73.3, from ImageNet 73.8 -> 73.6"
    ask(mixing, "cross-dataset mixup", {"student.mixup": {"kind": "cross", "alpha": 0.2}}, paper)
    ask(mixing, "mixup within a source", _WITHIN)
    found.append(Variant("target-only, mixup", mixing, (), _WITHIN, paper="from scratch 72.9 -> 73.3"))
    if images and not spatial:
        inflating, of = "how do images become clips?", images if len(web) > 1 else web
        for mode, paper in _INFLATION.items():
            if mode != recipe.student.camera.mode:
                ask(inflating, mode, {"student.camera.mode": mode}, paper, of)
    if untrimmed and spatial:
        frames, of = "which frames of untrimmed videos?", untrimmed if len(web) > 1 else web
        paper = "71.7 with negatives; positives alone worse"
        for kind, name in _SNIPPETS.items():
            if kind != recipe.student.snippets.kind:
                ask(frames, name, {"student.snippets": {"kind": kind}}, paper if kind != "random" else "", of)
    beyond = "what goes beyond the paper?"
    witness = plain | {evidence: True, "select.calibrate.temperature": 3.0}
    ask(beyond, "query as evidence, agree", witness)
    ask(beyond, "query as evidence, p >= 0.5", witness | {rule: "query", least: 0.5})
    ask(beyond, "query as evidence, soft, p >= 0.3", witness | {rule: "query", label: "soft"})
    believed = witness | {rule: "all", label: "soft"}
    ask(beyond, BELIEVED, believed)
    weighted = believed | {"student.confidence_weighted": True}
    ask(beyond, EVIDENCE, weighted)
    # Where nobody searched the teacher is the only witness, and to count what it is sure of more only tells it twice.
    full, fully = (EVIDENCE, weighted) if queried else (BELIEVED, believed)
    if start:
        found.append(Variant(f"{full}, {INFLATED}", beyond, web, start | fully, f"{ALL}, {INFLATED}"))
    ask(beyond, f"{full}, temperature 1.5", fully | {"select.calibrate.temperature": 1.5})
    crossed = fully | {"select.calibrate.split": "cross"}
    ask(beyond, f"{full}, cross-fitted temperature", crossed | {"select.calibrate.temperature": True})
    matched = crossed | {"select.calibrate.temperature": "matched"}
    ask(beyond, f"{full}, matched temperature", matched)
    for align, name in ((0.5, "half"), (1.0, "fully")) if not queried else ():
        ask(beyond, f"{full}, matched temperature, {name} aligned", matched | {"select.calibrate.align": align})
    untempered = plain | {evidence: True, rule: "query", label: "soft"}
    ask(beyond, "query as evidence without temperature, soft, p >= 0.3", untempered)
    unlabelled = plain | {rule: "all", "student.loss_weight": dict.fromkeys(web, 0.0)}
    for least_sure in (0.95, 0.5):  # students of soft labels are hardly ever as sure as FixMatch's
        consistent = {"student.consistency": {"confidence": least_sure}}
        name = f"consistency, p >= {least_sure}"
        found.append(Variant(f"{full}, {name}", beyond, web, fully | consistent, full))
        ask(beyond, f"web unlabelled, {name}", unlabelled | consistent)
    kinds = {is_spatial(teacher.network.name): name for name, teacher in recipe.teachers.items()}
    if len(kinds) > 1:
        both = {f"score.{unit}": [kinds[True], kinds[False]] for unit in ("clip", "window")}
        ask(beyond, "2D and 3D teachers averaged", both)
        ask(beyond, "2D and 3D teachers agree", both | {"select.unanimous": True})
    found.append(Variant("students as teachers", beyond, web, against=ALL, again=True))
    found.append(Variant(f"{full}, students as teachers", beyond, web, fully, full, again=True))
    for name in web if len(web) > 1 else ():
        ask(beyond, f"+{name}, {full}", fully, of=(name,))
    surest = plain | {rule: "agree" if queried else "teacher", least: 0.0, "select.calibrate.quantile": 0.3}
    ask(beyond, "thresholds by class: its surest 30 %", surest)
    if any(recipe.sources[name].val for name in recipe.target_sources):
        for share in (0.7, 0.9):
            precise = plain | {"select.calibrate.precision": share}
            ask(beyond, f"thresholds by class: {100 * share:.0f} % of held-out samples right", precise)
        ask(beyond, f"{full}, fitted temperature", fully | {"select.calibrate.temperature": True})
    if not recipe.student.trunk_views:
        ask(beyond, "batch-norm statistics per source", {"student.norm_per_source": True})
    if recipe.student.network.options.get("consensus", "mean") != "mean":
        found.append(Variant("target-only, mean consensus", beyond, (), {_CONSENSUS: "mean"}))
        ask(beyond, "mean consensus", {_CONSENSUS: "mean"})
    ask(beyond, _EMA, {"student.ema": 0.99})
    if not recipe.student.label_smoothing:
        ask(beyond, _SMOOTHING, {"student.label_smoothing": 0.1})
    return found
