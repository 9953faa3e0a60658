"""One spelling for each licence, so that a filter can name it."""

import re

_WORDS = (
    (r"\bcc[- ]?0\b|/publicdomain/zero/|\bzero\b", "cc0"),
    (
        r"/publicdomain/mark/|\bpdm\b|public[ -]?domain|\bpd\b|no known copyright|united states government",
        "public-domain",
    ),
    (r"\bpexels\b", "pexels"),
    (r"\bgfdl\b|gnu free documentation", "gfdl"),
    (r"all rights reserved|\bcopyrighted?\b", "all-rights-reserved"),
)
_LONG = {
    "attribution": "by",
    "noncommercial": "nc",
    "non-commercial": "nc",
    "sharealike": "sa",
    "share-alike": "sa",
    "noderivs": "nd",
    "noderivatives": "nd",
}


def normalise(text: str | None) -> str | None:
    """A licence's name or address as `cc0`, `cc-by`, `cc-by-nc-sa`, `public-domain`, ...; None if nothing is said.

    >>> normalise("https://creativecommons.org/licenses/by-sa/4.0/"), normalise("CC BY-NC 2.0"), normalise("CC0 1.0")
    ('cc-by-sa', 'cc-by-nc', 'cc0')
    """
    if not text or not text.strip():
        return None
    lowered = text.strip().lower()
    for long, short in _LONG.items():
        lowered = lowered.replace(long, short)
    match = re.search(r"(?:licenses/|\bcc[- ]|^)(by(?:[- ](?:nc|sa|nd))*)(?![a-z])", lowered)
    if match:
        parts = re.split(r"[- ]", match.group(1))
        return "-".join(["cc", "by", *(part for part in ("nc", "nd", "sa") if part in parts)])
    for pattern, name in _WORDS:
        if re.search(pattern, lowered):
            return name
    return re.sub(r"\s+", "-", lowered)[:60]
