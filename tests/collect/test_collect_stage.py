"""The whole stage, from class names to the table, against services on loopback."""

import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import services
import yaml
from collecting import CLASSES, QUICK, order, run
from loopback_site import Request, Site, answer, file, jpeg, page, sends
from PIL import Image
from typer.testing import CliRunner

from omnisource.cli import app
from omnisource.collect import collect, order_of, preview, provenance
from omnisource.collect.queries import Query
from omnisource.errors import UserError
from omnisource.media import Failure, IsolatedPool, Reason, probe_media
from omnisource.recipe import load_recipe
from omnisource.tables import read_table
from omnisource.workspace import StageRecord, Workspace, open_workspace


def make_video(size: int = 400, frames: int = 24, rate: int = 12) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = size * 4 // 3 // 2 * 2, size, "yuv420p"
        for i in range(frames):
            picture = np.full((size, stream.width, 3), i * 9, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def test_rows_carry_their_provenance(site: Site, tmp_path: Path) -> None:
    source = {"name": "openverse", "endpoint": services.openverse(site)}
    record, rows = run(tmp_path, order([source]))
    assert record.counts["files"] == len(rows) == services.COUNT  # both classes found the same pictures
    row = next(row for row in rows if row["url"].endswith("/openverse/1.jpg"))
    assert Path(row["uri"]).read_bytes() == jpeg(1)
    assert Path(row["uri"]).stem == hashlib.sha256(jpeg(1)).hexdigest()
    assert (
        row.items()
        >= {
            "role": "web",
            "format": "image",
            "query_label": "forehand",
            "query": "forehand",
            "author": "author 1",
            "licence": "cc-by-sa",
            "page_url": f"{site.url}/page/1",
        }.items()
    )
    assert row["status"] == "ok" and row["source"] == "web-image" and row["retrieved_at"] is not None
    assert all(count == 1 for path, count in site.asked.items() if path.endswith(".jpg"))


def test_a_second_run_asks_nothing(site: Site, tmp_path: Path) -> None:
    wanted = order([{"name": "openverse", "endpoint": services.openverse(site)}])
    first, rows = run(tmp_path, wanted)
    asked = len(site.log)
    second, again = run(tmp_path, wanted)
    assert first.fresh and not second.fresh and len(site.log) == asked and rows == again


def test_a_new_class_asks_only_for_itself(site: Site, tmp_path: Path) -> None:
    source = {"name": "openverse", "endpoint": services.openverse(site)}
    run(tmp_path, order([source], ["forehand"]))
    before = site.asked["/v1/images/"]
    run(tmp_path, order([source], ["forehand", "serve"]))
    assert site.asked["/v1/images/"] == 2 * before
    assert {request.query["q"] for request in site.log[-before:]} == {"serve"}


def test_failed_searches_and_urls_are_retried_when_asked(site: Site, tmp_path: Path) -> None:
    listed = {"results": [{"url": f"{site.url}/a.jpg", "license": "by"}], "page_count": 1}
    site.routes["/v1/images/"] = sends(answer(403), answer(200, json.dumps(listed).encode()))
    site.routes["/a.jpg"] = sends(answer(404), answer(200, jpeg()))
    wanted = order([{"name": "openverse", "endpoint": f"{site.url}/v1/images/"}], ["serve"])
    record, rows = run(tmp_path, wanted)
    assert record.counts["searches_failed"] == 1 and rows == []
    record, rows = run(tmp_path, wanted, retry_failed=True)
    assert record.counts["searches_failed"] == 0 and record.counts["reasons"] == {"http_404": 1}
    record, rows = run(tmp_path, wanted, retry_failed=True)
    assert len(rows) == 1 and record.counts["urls_failed"] == 0


def test_a_source_that_only_fails_does_not_stop_the_others(site: Site, tmp_path: Path) -> None:
    bad = {"name": "commons", "endpoint": f"{site.url}/nothing"}
    good = {"name": "openverse", "endpoint": services.openverse(site)}
    record, rows = run(tmp_path, order([bad, good], [f"class {i}" for i in range(9)]))
    assert len(rows) == services.COUNT
    assert site.asked["/nothing"] == 5 == record.counts["searches_failed"]


def test_licence_filter(site: Site, tmp_path: Path) -> None:
    source = {"name": "openverse", "endpoint": services.openverse(site)}
    _, rows = run(tmp_path, order([source], licence=["CC0"]))
    assert {row["licence"] for row in rows} == {"cc0"}
    assert not any(request.path == "/openverse/1.jpg" for request in site.log)


def test_a_licence_filter_that_changes_asks_again(site: Site, tmp_path: Path) -> None:
    source = {"name": "openverse", "endpoint": services.openverse(site)}
    run(tmp_path, order([source], licence=["cc0"]))
    _, rows = run(tmp_path, order([source]))
    assert Counter(row["licence"] for row in rows) == {"cc0": 23, "cc-by-sa": 22}
    _, rows = run(tmp_path, order([source], licence=["cc-by-sa"]))
    assert Counter((row["licence"], row["status"], row["reason"]) for row in rows) == {
        ("cc0", "dropped", "licence"): 23,
        ("cc-by-sa", "ok", None): 22,
    }


def test_a_larger_limit_asks_again_a_smaller_one_does_not(site: Site, tmp_path: Path) -> None:
    source = {"name": "openverse", "endpoint": services.openverse(site)}
    assert len(run(tmp_path, order([{**source, "limit": 10}], ["serve"]))[1]) == 10
    assert len(run(tmp_path, order([{**source, "limit": 30}], ["serve"]))[1]) == 30
    asked = site.asked["/v1/images/"]
    assert len(run(tmp_path, order([{**source, "limit": 5}], ["serve"]))[1]) == 30
    assert site.asked["/v1/images/"] == asked
    assert len(run(tmp_path, order([{**source, "limit": 100}], ["serve"]))[1]) == services.COUNT
    asked = site.asked["/v1/images/"]
    run(tmp_path, order([{**source, "limit": 200}], ["serve"]))  # there were no more than 45
    assert site.asked["/v1/images/"] == asked


def test_periods_beat_the_cap(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rest(request: Request) -> Any:
        if request.query["method"].endswith("getInfo"):
            return {"licenses": {"license": []}, "stat": "ok"}
        year = request.query["min_upload_date"][:4]
        photos = [
            {"id": f"{year}{i}", "owner": "o", "url_z": f"{site.url}/{year}/{i}.jpg"}
            for i in range(int(request.query["per_page"]))
        ]
        return {"photos": {"pages": 99, "photo": photos}, "stat": "ok"}

    monkeypatch.setenv("OMNISOURCE_FLICKR_KEY", "k")
    site.routes["/rest"] = page(rest)
    site.routes |= {f"/{2018 + i // 5}/{i % 5}.jpg": file(jpeg(i)) for i in range(15)}
    source = {"name": "flickr", "endpoint": f"{site.url}/rest", "limit": 5}
    _, rows = run(tmp_path, order([source], ["serve"], slice="year", since="2018-01-01", until="2020-12-31"))
    assert len(rows) == 15


def test_keys_stand_nowhere(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setenv("OMNISOURCE_PEXELS_KEY", "secret-pexels-key")
    monkeypatch.setenv("OMNISOURCE_FLICKR_KEY", "secret-flickr-key")
    sources = [
        {"name": "pexels", "endpoint": services.pexels(site)},
        {"name": "flickr", "endpoint": services.flickr(site)},
        {"name": "flickr", "endpoint": f"{site.url}/missing", "tags": True},
    ]
    _, rows = run(tmp_path, order(sources))
    assert len(rows) == 2 * services.COUNT
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    printed = "".join(capfd.readouterr())
    assert b"secret-" not in written and "secret-" not in printed


def test_media_of_all_formats(site: Site, tmp_path: Path) -> None:
    video = make_video()
    site.routes |= {
        "/page.html": sends(answer(200, f'<video src="{site.url}/v.mp4"></video>'.encode(), Content_Type="text/html")),
        "/v.mp4": file(video, "video/mp4"),
        "/i.jpg": file(jpeg(1)),
    }
    (tmp_path / "folder/serve").mkdir(parents=True)
    (tmp_path / "folder/serve/local.mp4").write_bytes(make_video(frames=12))
    (tmp_path / "images.txt").write_text(f"{site.url}/i.jpg\n")
    sources = [
        f"urls:{tmp_path}/images.txt",
        f"folder:{tmp_path}/folder",
        {"name": "yt-dlp", "argument": f"{site.url}/page.html?q={{query}}", "format": "untrimmed"},
    ]
    record, rows = run(tmp_path / "work", order(sources, ["serve"]))
    assert record.counts["urls_failed"] == 0
    assert Counter(row["format"] for row in rows) == {"image": 1, "clip": 1, "untrimmed": 1}
    film = next(row for row in rows if row["format"] == "untrimmed")
    assert Path(film["uri"]).read_bytes() == video and film["query_label"] == "serve"
    assert (tmp_path / "folder/serve/local.mp4").exists()


def test_a_disk_too_full_for_small_copies_stops_the_run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.routes["/a.jpg"] = file(jpeg(2, size=300))
    (tmp_path / "images.txt").write_text(f"{site.url}/a.jpg")
    wanted = order([f"urls:{tmp_path}/images.txt"], shrink=256)
    with monkeypatch.context() as full:
        full.setattr(IsolatedPool, "map", lambda _, do, jobs: ((j, Failure(Reason.NO_SPACE, "")) for j in jobs))
        record, rows = run(tmp_path / "work", wanted)
    assert "no space" in record.counts["stopped"] and record.counts["urls_pending"] == 1 and not rows
    record, rows = run(tmp_path / "work", wanted)
    assert Image.open(rows[0]["uri"]).size == (256, 256) and record.counts["not_shrunk"] == 0


def test_shrink_on_arrival(site: Site, tmp_path: Path) -> None:
    large = io.BytesIO()
    Image.effect_noise((900, 600), 50).convert("RGB").save(large, "PNG")
    site.routes |= {
        "/large.png": file(large.getvalue(), "image/png"),
        "/again.png": file(large.getvalue(), "image/png"),
        "/small.jpg": file(jpeg(2, size=200)),
        "/broken.jpg": file(b"\xff\xd8\xff" + bytes(500)),
        "/v.mp4": file(make_video(size=400, frames=24, rate=12), "video/mp4"),
    }
    names = ("large.png", "small.jpg", "broken.jpg", "again.png")
    (tmp_path / "images.txt").write_text("\n".join(f"{site.url}/{name}" for name in names))
    (tmp_path / "clips.txt").write_text(f"{site.url}/v.mp4\n")
    sources = [f"urls:{tmp_path}/images.txt", {"name": "urls", "argument": f"{tmp_path}/clips.txt", "format": "clip"}]
    record, rows = run(tmp_path / "work", order(sources, shrink=256))
    assert record.counts["urls_pending"] == 0 and len(rows) == 4
    assert record.counts["not_shrunk"] == 1
    by_name = {row["url"].rsplit("/", 1)[1]: Path(row["uri"]) for row in rows}
    assert Image.open(by_name["large.png"]).size == (384, 256) and by_name["large.png"].suffix == ".jpg"
    assert by_name["small.jpg"].read_bytes() == jpeg(2, size=200)
    assert by_name["broken.jpg"].exists()  # for the probe to judge
    facts = probe_media(by_name["v.mp4"])
    assert min(facts.width, facts.height) == 256 and facts.num_frames == 24
    assert facts.duration_s == pytest.approx(2.0, abs=0.1)
    with av.open(str(by_name["v.mp4"])) as container:
        keys = [packet.pts for packet in container.demux(video=0) if packet.is_keyframe]
    assert len(keys) >= 3  # a key frame every 8 frames
    with open_workspace(tmp_path / "work") as workspace:
        finds = provenance(workspace, str(by_name["large.png"]))[0]["finds"]
    assert {find["original_sha256"] for find in finds} == {hashlib.sha256(large.getvalue()).hexdigest()}
    files = [path for path in (tmp_path / "work/media/web").rglob("*") if path.is_file()]
    assert len(files) == 4


def test_quota_ends_the_stage_not_the_pipeline(site: Site, tmp_path: Path) -> None:
    source = {"name": "openverse", "endpoint": services.openverse(site)}
    record, rows = run(tmp_path, order([source], quota_bytes=5 * len(jpeg(0))))
    assert "quota" in record.counts["stopped"] and 0 < len(rows) <= 5
    assert record.counts["urls_pending"] >= services.COUNT - 5
    again, _ = run(tmp_path, order([source], quota_bytes=5 * len(jpeg(0))))
    assert again.fresh  # it was stopped, so it is not done: space may have been made
    record, rows = run(tmp_path, order([source]))
    assert len(rows) == services.COUNT and "stopped" not in record.counts


def test_a_damaged_state_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "collect").mkdir()
    (tmp_path / "collect" / "state.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match=r"state\.sqlite: damaged .*delete it"):
        run(tmp_path, order([{"name": "openverse", "endpoint": services.openverse(site)}]))


RECIPE = {
    "name": "strokes",
    "classes": CLASSES,
    "sources": {
        "target": {"role": "target", "path": "target"},
        "pictures": {"role": "web", "format": "image", "layout": "collected"},
        "others": {"role": "web", "format": "image", "layout": "collected"},
    },
    "teachers": {"image": {"network": {"name": "tsn_r50"}}, "video": {"network": {"name": "slowonly_r50"}}},
    "student": {"network": {"name": "slowonly_r50"}},
}


def write_recipe(folder: Path, collect: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "collect": {**QUICK, **collect}}, sort_keys=False))
    return path


def test_a_recipe_says_which_source_gets_what(site: Site, tmp_path: Path) -> None:
    sources = [
        {"name": "openverse", "endpoint": services.openverse(site)},
        {"name": "commons", "endpoint": services.commons(site), "into": "others"},
    ]
    loaded = load_recipe(write_recipe(tmp_path, {"sources": sources}))
    with open_workspace(tmp_path / "work") as workspace:
        record = collect(loaded, workspace)
    assert record.counts["sources"] == {"pictures": services.COUNT, "others": services.COUNT}
    sources[1]["into"] = "target"
    with pytest.raises(UserError, match="layout: collected"):
        order_of(load_recipe(write_recipe(tmp_path, {"sources": sources})))
    with pytest.raises(UserError, match="sources"):
        order_of(load_recipe(write_recipe(tmp_path, {})))


def test_preview_asks_nothing_and_counts_right(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"name": "openverse", "endpoint": services.openverse(site)}
    wanted = order([source, "pexels"], CLASSES)
    open_one, keyless = preview(wanted)
    assert open_one.queries == [Query(name, name) for name in CLASSES] and site.log == []
    assert (open_one.searches, open_one.requests, open_one.most_results) == (2, 24, 480)
    assert keyless.problem and "OMNISOURCE_PEXELS_KEY" in keyless.problem


def test_command_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("forehand\nserve\n")
    (tmp_path / "list.csv").write_text(f"url,label\n{site.url}/a.jpg,serve\n{site.url}/b.jpg,forehand\n")
    site.routes |= {"/a.jpg": file(jpeg(1)), "/b.jpg": file(jpeg(2))}
    common = ["collect", "--classes", str(tmp_path / "classes.txt"), "--sources", f"urls:{tmp_path}/list.csv"]
    work = ["--workspace", str(tmp_path / "work")]
    runner = CliRunner()
    shown = runner.invoke(app, [*common, *work, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "urls" in shown.output and site.log == []
    done = runner.invoke(app, [*common, *work, "--allow-private", "--set", "rate_per_host=0"])
    assert done.exit_code == 0, done.output
    with open_workspace(tmp_path / "work") as workspace:
        rows = read_table(workspace.table("collected")).to_pylist()
    assert {row["query_label"] for row in rows} == set(CLASSES)
    shown = runner.invoke(app, [*common, *work, "--status"])
    assert shown.exit_code == 0 and "serve" in shown.output, shown.output
    for verb in (["provenance", rows[0]["url"]], ["datasheet"], ["forget", "--url", rows[0]["url"]]):
        result = runner.invoke(app, [*verb, *work])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "work/datasheet.md").read_text().startswith("# work")
    with pytest.raises(UserError, match=r"recipe\.yaml: would be overwritten"):
        runner.invoke(app, ["datasheet", "recipe.yaml", *work], catch_exceptions=False)
    with pytest.raises(UserError, match="exactly one"):
        runner.invoke(app, ["forget", *work], catch_exceptions=False)
    with pytest.raises(UserError, match="--classes FILE"):
        runner.invoke(app, ["collect"], catch_exceptions=False)


def test_without_permission_the_private_site_is_not_asked(site: Site, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("serve\n")
    (tmp_path / "list.txt").write_text(f"{site.url}/a.jpg\n")
    arguments = ["--classes", str(tmp_path / "classes.txt"), "--sources", f"urls:{tmp_path}/list.txt"]
    result = CliRunner().invoke(app, ["collect", *arguments, "--workspace", str(tmp_path / "work")])
    assert result.exit_code == 0, result.output
    with open_workspace(tmp_path / "work") as workspace:
        assert _record(workspace).counts["reasons"] == {"private_address": 1}
    assert site.log == []


def test_check_asks_for_three_results(site: Site, tmp_path: Path) -> None:
    services.openverse(site)
    recipe = write_recipe(tmp_path, {"sources": [{"name": "openverse", "endpoint": f"{site.url}/v1/images/"}]})
    result = CliRunner().invoke(app, ["collect", str(recipe), "--check", "openverse", "--query", "serve"])
    assert result.exit_code == 0, result.output
    assert len(site.log) == 1 and site.log[0].query["q"] == "serve"
    site.routes["/v1/images/"] = sends(answer(200, b"{}"))
    with pytest.raises(UserError, match="does not answer as expected"):
        CliRunner().invoke(app, ["collect", str(recipe), "--check", "openverse"], catch_exceptions=False)


def _record(workspace: Workspace) -> StageRecord:
    record = workspace.record("collect")
    assert record is not None
    return record


def test_file_names_never_come_from_the_network(site: Site, tmp_path: Path) -> None:
    evil = "/..%2f..%2fevil.sh%00.jpg"
    site.routes[evil] = sends(
        answer(200, jpeg(), Content_Type="image/jpeg", Content_Disposition='attachment; filename="../../evil.sh"')
    )
    (tmp_path / "list.txt").write_text(f"{site.url}{evil}\n")
    run(tmp_path / "work", order([f"urls:{tmp_path}/list.txt"]))
    names = [path.name for path in (tmp_path / "work/media/web").rglob("*") if path.is_file()]
    assert len(names) == 1 and all(re.fullmatch(r"[0-9a-f]{64}\.jpg", name) for name in names)
