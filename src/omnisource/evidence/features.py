"""The test of a student on a fixed trunk: what the trunk sees of the test samples is computed once a fold and kept."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from omnisource.evaluate import crop_size, view_request
from omnisource.evaluate.test import test_samples
from omnisource.infer import infer
from omnisource.networks import Meta, Network, load_checkpoint
from omnisource.recipe import Recipe
from omnisource.tables import write_atomic
from omnisource.train import trunk_digest
from omnisource.workspace import Workspace, fingerprint


def test_on_features(recipe: Recipe, workspace: Workspace, checkpoint: Path) -> tuple[float, float, int]:
    """Top-1 and mean-class accuracy by the views of `omnisource test`, and the number of samples."""
    network, meta = load_checkpoint(checkpoint)
    features, labels = _views(recipe, workspace, network, meta)
    with torch.no_grad():
        probs = network.head(features).softmax(2).mean(1)  # over views, as in `omnisource test`
        right = probs.argmax(1) == labels
    each = [float(right[labels == label].float().mean()) for label in sorted(set(labels.tolist()))]
    return float(right.float().mean()), float(np.mean(each)), len(labels)


def _views(recipe: Recipe, workspace: Workspace, network: Network, meta: Meta) -> tuple[torch.Tensor, torch.Tensor]:
    """What the classifier sees of the test samples, (N, views, D), and their classes (N,)."""
    given, views, probed = recipe.student.input, recipe.test, workspace.record("probe")
    settings = {
        "trunk": trunk_digest(network),
        "consensus": network.consensus,
        "input": given.model_dump(mode="json"),
        "test": views.model_dump(mode="json"),
        "probe": probed.stamp if probed else None,
    }
    path = workspace.root / "views" / f"{fingerprint(settings)}.npz"
    if path.exists():
        with np.load(path) as kept:
            return torch.from_numpy(kept["features"]), torch.from_numpy(kept["labels"])
    classes = workspace.classes()
    listed, _ = test_samples(workspace, views.split)
    listed = [row for row in listed if row["facts"] and row["facts"]["status"] == "ok"]
    requests = (view_request(row, row["facts"], given, views, network.spatial) for row in listed)
    truth = {row["sample_id"]: classes.index(row["label"]) for row in listed}
    size = crop_size(given, views)
    found = infer(network, meta, requests, size=size, short_side=given.short_side, features=True)
    seen = [(result.features, truth[str(result.request.key)]) for result in found if result.features is not None]
    features, labels = np.stack([row for row, _ in seen]), np.array([label for _, label in seen])
    content = BytesIO()
    np.savez(content, features=features, labels=labels)
    write_atomic(path, content.getvalue())  # two cells may come here at once: each writes the same
    return torch.from_numpy(features), torch.from_numpy(labels)
