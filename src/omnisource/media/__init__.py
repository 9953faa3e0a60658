"""Media files: what they are, what is in them, and their pixels, within limits."""

from omnisource.media.image import decode_image, scaled_size
from omnisource.media.limits import DEFAULT_LIMITS, Limits, MediaError, Reason
from omnisource.media.pool import Failure, IsolatedPool, shared_pool
from omnisource.media.prepare import Prepared, prepare_image, prepare_video
from omnisource.media.probe import MediaFacts, probe_media
from omnisource.media.sniff import Kind, sniff, sniff_bytes
from omnisource.media.video import decode_frames, iter_frames
from omnisource.media.write import partial_of, write_video

__all__ = [
    "DEFAULT_LIMITS",
    "Failure",
    "IsolatedPool",
    "Kind",
    "Limits",
    "MediaError",
    "MediaFacts",
    "Prepared",
    "Reason",
    "decode_frames",
    "decode_image",
    "iter_frames",
    "partial_of",
    "prepare_image",
    "prepare_video",
    "probe_media",
    "scaled_size",
    "shared_pool",
    "sniff",
    "sniff_bytes",
    "write_video",
]
