"""Where candidates come from: one file a kind of source, all behind `Source.search`."""

from collections.abc import Callable
from pathlib import Path

from omnisource.collect.candidate import Candidate, Source
from omnisource.collect.sources.archive import Archive
from omnisource.collect.sources.commons import Commons
from omnisource.collect.sources.flickr import Flickr
from omnisource.collect.sources.image_search import ImageSearch
from omnisource.collect.sources.listed import Folder, UrlList
from omnisource.collect.sources.openverse import Openverse
from omnisource.collect.sources.pexels import Pexels
from omnisource.collect.sources.social import Social
from omnisource.collect.sources.video import VideoSearch, VideoTaker
from omnisource.collect.web import Web
from omnisource.recipe.collect import CollectSource

__all__ = ["LISTS", "Candidate", "Source", "VideoTaker", "open_source"]

LISTS = frozenset({"urls", "folder"})  # sources that are listed once instead of searched for every class


def open_source(settings: CollectSource, web: Web, resolve: Callable[[str], Path]) -> Source:
    """The source that the recipe names. Raises `UserError`: no key, no such file, library not installed."""
    web = web.with_robots(settings.robots)
    match settings.name:
        case "archive":
            return Archive(settings, web)
        case "commons":
            return Commons(settings, web)
        case "flickr":
            return Flickr(settings, web)
        case "folder":
            return Folder(settings, resolve(settings.argument))
        case "gallery-dl":
            return Social(settings, web)
        case "baidu" | "bing" | "google":
            return ImageSearch(settings, web)
        case "openverse":
            return Openverse(settings, web)
        case "pexels":
            return Pexels(settings, web)
        case "urls":
            return UrlList(settings, resolve(settings.argument))
        case "yt-dlp":
            return VideoSearch(settings, web)
