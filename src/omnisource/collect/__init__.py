"""Collection: from class names to media, politely and resumably."""

from omnisource.collect.addresses import Refused
from omnisource.collect.datasheet import datasheet
from omnisource.collect.fetch import Fetcher, FetchError
from omnisource.collect.forget import Forgotten, forget
from omnisource.collect.preview import PlannedSource, check_source, preview
from omnisource.collect.provenance import provenance
from omnisource.collect.queries import Query, Window, queries, stem, tags, windows
from omnisource.collect.stage import Order, collect, collect_order, order_of, standing

__all__ = [
    "FetchError",
    "Fetcher",
    "Forgotten",
    "Order",
    "PlannedSource",
    "Query",
    "Refused",
    "Window",
    "check_source",
    "collect",
    "collect_order",
    "datasheet",
    "forget",
    "order_of",
    "preview",
    "provenance",
    "queries",
    "standing",
    "stem",
    "tags",
    "windows",
]
