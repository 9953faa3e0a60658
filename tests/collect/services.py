"""Answers in the documented form of each service that a source asks, over media of the test's own."""

import json
from typing import Any

from loopback_site import Handler, Request, Site, answer, file, jpeg, page

COUNT = 45  # results of every query


def media_routes(prefix: str, count: int = COUNT, seed: int = 0) -> dict[str, Handler]:
    return {f"/{prefix}/{i}.jpg": file(jpeg(seed + i)) for i in range(count)}


def openverse(site: Site) -> str:
    def search(request: Request) -> Any:
        number, size = int(request.query["page"]), int(request.query["page_size"])
        assert size <= 20, "an anonymous caller gets 20 at most"
        results = [
            {
                "id": f"o{i}",
                "title": f"{request.query['q']} {i}",
                "foreign_landing_url": f"{site.url}/page/{i}",
                "url": f"{site.url}/openverse/{i}.jpg",
                "creator": f"author {i % 3}",
                "license": "by-sa" if i % 2 else "cc0",
                "license_version": "4.0",
                "license_url": "https://creativecommons.org/"
                + ("licenses/by-sa/4.0/" if i % 2 else "publicdomain/zero/1.0/"),
            }
            for i in range((number - 1) * size, min(number * size, COUNT))
        ]
        return {"result_count": COUNT, "page_count": -(-COUNT // size), "page": number, "results": results}

    site.routes |= {"/v1/images/": page(search), **media_routes("openverse")}
    return f"{site.url}/v1/images/"


def commons(site: Site) -> str:
    def search(request: Request) -> Any:
        asked = request.query
        assert asked["generator"] == "search" and asked["gsrnamespace"] == "6"
        start, size = int(asked.get("gsroffset", 0)), int(asked["gsrlimit"])
        video = asked["gsrsearch"].startswith("filetype:video")
        pages = [
            {
                "pageid": i,
                "ns": 6,
                "title": f"File:Stroke {i}.jpg",
                "index": i + 1,
                "imageinfo": [
                    {
                        "url": f"{site.url}/commons/{i}.jpg",
                        "descriptionurl": f"{site.url}/wiki/File:{i}",
                        "sha1": f"{i:040x}",
                        "size": 1000,
                        "mime": "video/webm" if video else "image/jpeg",
                        "user": "Uploader",
                        "extmetadata": {
                            "Artist": {"value": f'<a href="//x">Jane &amp; {i}</a>', "source": "commons-desc-page"},
                            "LicenseShortName": {"value": "CC BY-SA 4.0"},
                        },
                    }
                ],
            }
            for i in range(start, min(start + size, COUNT))
        ]
        more = {"continue": {"gsroffset": start + size, "continue": "gsroffset||"}} if start + size < COUNT else {}
        return {"batchcomplete": True, **more, "query": {"pages": pages[::-1]}}

    site.routes |= {"/w/api.php": page(search), **media_routes("commons", seed=1000)}
    return f"{site.url}/w/api.php"


def archive(site: Site, video: bytes) -> str:
    def search(request: Request) -> Any:
        rows, number = int(request.query["rows"]), int(request.query["page"])
        docs = [
            {
                "identifier": f"film{i}",
                "title": f"Film {i}",
                "creator": ["A", "B"],
                "licenseurl": "http://creativecommons.org/publicdomain/mark/1.0/",
            }
            for i in range((number - 1) * rows, min(number * rows, 3))
        ]
        return {"responseHeader": {"status": 0}, "response": {"numFound": 3, "start": 0, "docs": docs}}

    site.routes["/advancedsearch.php"] = page(search)
    for i in range(3):
        files = [
            {"name": "film.avi", "format": "Cinepack", "size": "99", "source": "original"},
            {"name": "film 512.mp4", "format": "512Kb MPEG4", "size": "10", "length": "1:33", "sha1": "a" * 40},
            {"name": "film.mp4", "format": "h.264", "size": "20", "length": "93.5", "sha1": f"{i:040x}"},
        ]
        site.routes[f"/metadata/film{i}"] = page({"files": files if i else files[:1]})
        site.routes[f"/download/film{i}/film.mp4"] = file(video + bytes([i]), "video/mp4")
    return site.url


def pexels(site: Site) -> str:
    def photos(request: Request) -> Any:
        assert request.headers.get("authorization") == "secret-pexels-key"
        number, size = int(request.query["page"]), int(request.query["per_page"])
        found = [
            {
                "id": i,
                "url": f"{site.url}/photo/{i}",
                "photographer": f"P{i}",
                "alt": "a stroke",
                "src": {"original": f"{site.url}/original/{i}.jpg", "large": f"{site.url}/pexels/{i}.jpg"},
            }
            for i in range((number - 1) * size, min(number * size, COUNT))
        ]
        more = {"next_page": f"{site.url}/v1/search?page={number + 1}"} if number * size < COUNT else {}
        return {"page": number, "per_page": size, "total_results": COUNT, "photos": found, **more}

    def videos(request: Request) -> Any:
        files = [
            {"quality": "hd", "width": 1920, "height": 1080, "link": f"{site.url}/v/hd.mp4", "file_type": "video/mp4"},
            {"quality": "sd", "width": 640, "height": 360, "link": f"{site.url}/v/sd.mp4", "file_type": "video/mp4"},
            {"quality": "sd", "width": 426, "height": 240, "link": f"{site.url}/v/tiny.mp4", "file_type": "video/mp4"},
        ]
        one = {"id": 1, "url": f"{site.url}/video/1", "duration": 12, "user": {"name": "V"}, "video_files": files}
        return {"page": 1, "per_page": 1, "total_results": 1, "videos": [one]}

    site.routes |= {"/v1/search": page(photos), "/videos/search": page(videos), **media_routes("pexels", seed=2000)}
    return site.url


def flickr(site: Site) -> str:
    def rest(request: Request) -> Any:
        asked = request.query
        if asked["api_key"] != "secret-flickr-key":
            return {"stat": "fail", "code": 100, "message": "Invalid API Key (Key has invalid format)"}
        if asked["method"] == "flickr.photos.licenses.getInfo":
            named = [
                {"id": 0, "name": "All Rights Reserved", "url": ""},
                {"id": 4, "name": "Attribution License", "url": "https://creativecommons.org/licenses/by/2.0/"},
            ]
            return {"licenses": {"license": named}, "stat": "ok"}
        number, size = int(asked["page"]), int(asked["per_page"])
        photos = [
            {
                "id": str(i),
                "owner": "12@N00",
                "ownername": "Someone",
                "title": "t",
                "license": "4" if i % 2 else "0",
                "url_z": f"{site.url}/flickr/{i}.jpg",
            }
            for i in range((number - 1) * size, min(number * size, COUNT))
        ]
        return {"photos": {"page": number, "pages": -(-COUNT // size), "perpage": size, "photo": photos}, "stat": "ok"}

    site.routes |= {"/services/rest/": page(rest), **media_routes("flickr", seed=3000)}
    return f"{site.url}/services/rest/"


def engine(site: Site, name: str) -> str:
    """The search pages of an image search engine, in the form that icrawler's parser reads."""

    def google(start: int) -> bytes:
        urls = "".join(f'["{site.url}/{name}/{i}.jpg",480,640],' for i in range(start, min(start + 100, COUNT)))
        return f"<html><body><script>AF_initDataCallback({{data:[{urls}]}});</script></body></html>".encode()

    def bing(start: int) -> bytes:
        cells = "".join(
            f'<div class="imgpt"><a m=\'{{"murl":"{site.url}/{name}/{i}.jpg","t":"x"}}\'></a></div>'
            for i in range(start, min(start + 20, COUNT))
        )
        return f"<html><body>{cells}</body></html>".encode()

    def baidu(start: int) -> bytes:
        found = [{"hoverURL": f"{site.url}/{name}/{i}.jpg"} for i in range(start, min(start + 30, COUNT))]
        return json.dumps({"data": [*found, {}]}).encode()

    async def handle(request: Request, writer: Any) -> None:
        start = int(request.query.get("start") or request.query.get("first") or request.query.get("pn") or 0)
        writer.write(
            answer(200, {"google": google, "bing": bing, "baidu": baidu}[name](start), Content_Type="text/html")
        )

    paths = {"google": "/search", "bing": "/images/async", "baidu": "/search/acjson"}
    site.routes |= {paths[name]: handle, **media_routes(name, seed=4000)}
    return site.url
