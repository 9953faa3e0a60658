"""The Arrow schema of every table. A row is a sample, or a piece of one (window, frame) where `start_s` says so.

Times are seconds from the first frame of the file; NaN never stands for "unknown", null does. Class columns hold
class *names*, probabilities are in [0, 1] and listed in the order of the recipe's class list.
"""

import pyarrow as pa

_TEXT = pa.string()

# One row per file that a source names, exactly as it was found. Written by `ingest` and `collect`.
SAMPLES = pa.schema(
    [
        pa.field("sample_id", _TEXT, nullable=False),
        pa.field("source", _TEXT, nullable=False),
        pa.field("role", _TEXT, nullable=False),  # target | web
        pa.field("format", _TEXT, nullable=False),  # image | clip | untrimmed
        pa.field("uri", _TEXT, nullable=False),
        pa.field("label", _TEXT),  # class name of a target sample
        pa.field("query_label", _TEXT),  # class name whose query found a web sample
        pa.field("split", _TEXT),  # train | val | test, target samples only
        pa.field("fold", pa.int32()),
        pa.field("group", _TEXT),  # samples that must not be split (same film, same place)
        pa.field("start_s", pa.float64()),  # the labelled piece of the file; null: all of it
        pa.field("end_s", pa.float64()),
        pa.field("bytes", pa.int64()),
        pa.field("url", _TEXT),
        pa.field("page_url", _TEXT),
        pa.field("query", _TEXT),
        pa.field("author", _TEXT),
        pa.field("licence", _TEXT),
        pa.field("retrieved_at", pa.timestamp("us", tz="UTC")),
        pa.field("status", _TEXT, nullable=False),  # ok | dropped
        pa.field("reason", _TEXT),  # reason code of a dropped row
    ]
)

# What the file really holds. One row per `ok` sample. Written by `probe`.
PROBE = pa.schema(
    [
        pa.field("sample_id", _TEXT, nullable=False),
        pa.field("kind", _TEXT),  # image | video, by content
        pa.field("container", _TEXT),
        pa.field("codec", _TEXT),
        pa.field("width", pa.int32()),  # upright, after rotation
        pa.field("height", pa.int32()),
        pa.field("rotation", pa.int32()),  # degrees clockwise that make the stored picture upright
        pa.field("fps", pa.float64()),
        pa.field("variable_fps", pa.bool_()),
        pa.field("num_frames", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("decodable_share", pa.float64()),
        pa.field("first_bad_s", pa.float64()),
        pa.field("flags", pa.list_(_TEXT)),  # still | black | one_frame | audio_only | ...
        pa.field("bytes", pa.int64()),
        pa.field("sha256", _TEXT),
        pa.field("phash", _TEXT),  # 64 bits as 16 hexadecimal digits
        pa.field("status", _TEXT, nullable=False),  # ok | dropped
        pa.field("reason", _TEXT),
        pa.field("message", _TEXT),
    ]
)

# Where a sample's training form lies. One row per sample that passed `probe`. Written by `prepare`.
PREPARED = pa.schema(
    [
        pa.field("sample_id", _TEXT, nullable=False),
        pa.field("uri", _TEXT),
        pa.field("gop", pa.int32()),  # frames from one key frame to the next; null: an image
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("num_frames", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("status", _TEXT, nullable=False),  # ok | dropped
        pa.field("reason", _TEXT),
        pa.field("message", _TEXT),
    ]
)

# One row per examined web sample. Written by `dedupe`.
DUPLICATES = pa.schema(
    [
        pa.field("sample_id", _TEXT, nullable=False),
        pa.field("status", _TEXT, nullable=False),  # ok | dropped
        pa.field("reason", _TEXT),  # duplicate_exact | duplicate_near | near_test
        pa.field("rule", _TEXT),  # sha256 | phash | feature
        pa.field("twin_id", _TEXT),
        pa.field("similarity", pa.float64()),
    ]
)

# One row per unit and teacher. Written by `score`.
SCORES = pa.schema(
    [
        pa.field("sample_id", _TEXT, nullable=False),
        pa.field("teacher", _TEXT, nullable=False),
        pa.field("unit", _TEXT, nullable=False),  # image | clip | window | frame
        pa.field("start_s", pa.float64()),  # of a window or frame; null: the whole sample
        pa.field("end_s", pa.float64()),
        pa.field("top_classes", pa.list_(pa.int32())),  # best first
        pa.field("top_probs", pa.list_(pa.float32())),
        pa.field("query_prob", pa.float32()),  # probability of the query's class; null without one
        pa.field("entropy", pa.float32()),  # nats
        pa.field("probs", pa.list_(pa.float32())),  # all classes; null where not asked for
        pa.field("feature", pa.list_(pa.float16())),  # trunk output; null where not asked for
        pa.field("status", _TEXT, nullable=False),  # ok | dropped
        pa.field("reason", _TEXT),
    ]
)

# One row per unit of a web sample under one named selection. Written by `select`.
DECISIONS = pa.schema(
    [
        pa.field("sample_id", _TEXT, nullable=False),
        pa.field("source", _TEXT, nullable=False),
        pa.field("unit", _TEXT, nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("negative", pa.bool_(), nullable=False),  # a frame usable as a negative snippet of its video
        pa.field("label", _TEXT),
        pa.field("probs", pa.list_(pa.float32())),  # soft pseudo-label; null: one-hot `label`
        pa.field("confidence", pa.float32()),
        pa.field("reason", _TEXT),  # null for kept rows
        pa.field("decided_by", _TEXT, nullable=False),  # rule | human
    ]
)

# One row per test sample and view; view -1 is the average over views. Written by `test`, which also puts the class list
# into the file's metadata.
PREDICTIONS = pa.schema(
    [
        pa.field("sample_id", _TEXT, nullable=False),
        pa.field("view", pa.int32(), nullable=False),
        pa.field("label", _TEXT),
        pa.field("group", _TEXT),  # as in `samples`: intervals resample whole groups
        pa.field("predicted", _TEXT),
        pa.field("probs", pa.list_(pa.float32())),
        pa.field("status", _TEXT, nullable=False),
        pa.field("reason", _TEXT),
    ]
)

# One row per target sample. Written by `flow`.
FLOW = pa.schema(
    [
        pa.field("sample_id", _TEXT, nullable=False),
        pa.field("uri", _TEXT),  # of the flow video, which has the time stamps of its RGB video
        pa.field("video_frames", pa.int64()),
        pa.field("flow_frames", pa.int64()),  # one fewer than the video has, but at least one
        pa.field("flow_bytes", pa.int64()),  # of the flow video, as it was written
        pa.field("status", _TEXT, nullable=False),  # ok | dropped
        pa.field("reason", _TEXT),
        pa.field("message", _TEXT),
    ]
)

_TABLES = {
    "samples": SAMPLES,
    "collected": SAMPLES,
    "probe": PROBE,
    "prepared": PREPARED,
    "duplicates": DUPLICATES,
    "scores": SCORES,
    "calibration": SCORES,
    "decisions": DECISIONS,
    "predictions": PREDICTIONS,
    "flow": FLOW,
}


def schema_of(table: str) -> pa.Schema | None:
    """The schema of a workspace's table by its name (`decisions-default`); None for a name that is none of them."""
    return _TABLES.get(table.split("-")[0])


def misfit(found: pa.Schema, wanted: pa.Schema) -> str:
    """The first column of `wanted` that `found` lacks or has in another kind of type, in words; "" if all are there.

    Wider and narrower types of a kind are taken, as other programs write them; so are columns that nobody asked for.
    """
    for field in wanted:
        if field.name not in found.names:
            return f"no column '{field.name}'"
        if found.names.count(field.name) > 1:
            return f"two columns '{field.name}'"
        there = found.field(found.get_field_index(field.name)).type
        if not _alike(there, field.type):
            return f"column '{field.name}' is {there}, not {field.type}"
    return ""


def _alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    kind = pa.types
    if kind.is_dictionary(found):
        found = found.value_type
    if kind.is_list(wanted):
        lists = kind.is_list(found) or kind.is_large_list(found) or kind.is_fixed_size_list(found)
        return bool(lists) and _alike(found.value_type, wanted.value_type)
    for is_kind in (kind.is_floating, kind.is_integer, kind.is_timestamp):
        if is_kind(wanted):
            return bool(is_kind(found))
    return bool(found == wanted or (kind.is_string(wanted) and kind.is_large_string(found)))
