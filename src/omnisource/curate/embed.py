"""Trunk features of frames, for finding near-duplicates (paper, section 3.1)."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omnisource.clips import segment_test
from omnisource.curate.engine import Engine, on_ray
from omnisource.curate.pieces import Look, Piece, Span, pieces
from omnisource.curate.samples import Sample, frames_between
from omnisource.errors import UserError
from omnisource.infer import Request, infer
from omnisource.media import Limits
from omnisource.networks import Meta, create, initialise, options_of, read_options
from omnisource.progress import meter, track
from omnisource.recipe import Recipe, Score
from omnisource.tables import Journal, check_table, read_parquet, table_from_rows

F16 = npt.NDArray[np.float16]

FEATURES = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("feature", pa.list_(pa.float16())),  # of one frame; null when the file could not be read
        pa.field("reason", pa.string()),
    ]
)
SIZE, SHORT_SIDE = 128, 146
_SECONDS = 10.0  # of an untrimmed video count as one video


class Trunk:
    """The network whose features are compared, ready to look at frames."""

    def __init__(self, recipe: Recipe, workers: int | None) -> None:
        settings = recipe.dedupe
        path = None if settings.init == "imagenet" else recipe.resolve(settings.init)
        # What one of our files says of its network and its input holds here too.
        known = options_of(settings.network) - {"consensus"}  # frames are seen one by one
        options = {key: value for key, value in (read_options(path) if path else {}).items() if key in known}
        self.network = create(settings.network, 1, **options)
        if not self.network.spatial:
            raise UserError(f"dedupe.network: {settings.network} is no 2D network; frames are compared one by one")
        try:
            found = initialise(self.network, "imagenet", path)
        except UserError as error:
            raise UserError(f"dedupe.init: {error}; or set dedupe.against_test=false") from None
        assert found is not None
        self.network.eval()
        self.meta = Meta(mean=found.mean, std=found.std)
        self._limits, self._workers = recipe.probe.limits, workers

    def look(self, requests: Iterable[Request]) -> Iterator[tuple[Request, F16 | None, str | None]]:
        """For each request its features, (views, D), or None and the reason."""
        for result in infer(
            self.network,
            self.meta,
            requests,
            size=SIZE,
            short_side=SHORT_SIDE,
            batch=32,
            workers=self._workers,
            features=True,
            limits=Limits.of(self._limits),
            memory_bytes=self._limits.memory_bytes,
        ):
            features = None if result.features is None else result.features.astype(np.float16)
            yield result.request, features, result.reason


def frames_of(sample: Sample, frames: int) -> Iterator[Request]:
    """Requests for the frames that stand for a sample: one of an image, `frames` of a clip or of every 10 seconds."""
    if sample.format == "clip":
        count = frames_between(sample, sample.start_s or 0.0, sample.end_s)
        indices = segment_test(count, min(frames, count))[:, None]
        piece = Piece(sample, (Span("clip", sample.start_s, sample.end_s),), last=True)
        start_s = sample.start_s or 0.0
        yield Request(piece, sample.uri, indices, start_s=start_s, end_s=sample.end_s, bytes=sample.bytes)
    else:
        each = Score(frames_per_second=frames / _SECONDS)
        yield from pieces(sample, ["image", "frame"], Look(True, 1, 1), each)


def embed(recipe: Recipe, samples: pa.Table, journal: Journal, engine: Engine, what: str) -> None:
    """Writes the features of all samples (a table of the fields of Sample) that the journal does not hold yet."""
    done = journal.done()
    work = samples.filter(pc.invert(pc.is_in(samples["sample_id"], pa.array(sorted(done), pa.string()))))
    if engine.kind == "local":
        journal.fill(track(_BlockEmbedder(recipe, engine.workers).groups(work), work.num_rows, what))
        return
    with meter(what, work.num_rows) as bar:
        for table in on_ray(engine, work, _BlockEmbedder, recipe, engine.workers):
            journal.append_table(table)
            bar.advance(pc.count_distinct(table["sample_id"]).as_py())


class _BlockEmbedder:
    """Looks at blocks of samples."""

    def __init__(self, recipe: Recipe, workers: int | None) -> None:
        self._frames, self._trunk = recipe.dedupe.frames, Trunk(recipe, workers)

    def __call__(self, block: pa.Table) -> pa.Table:
        return table_from_rows((row for group in self.groups(block) for row in group), FEATURES)

    def groups(self, block: pa.Table) -> Iterator[list[dict[str, object]]]:
        """The rows of FEATURES, sample by sample."""
        samples = (Sample(**row) for batch in block.to_batches() for row in batch.to_pylist())
        return _rows(self._trunk, (request for sample in samples for request in frames_of(sample, self._frames)))


def _rows(trunk: Trunk, requests: Iterable[Request]) -> Iterator[list[dict[str, object]]]:
    """The rows of FEATURES, sample by sample."""
    rows: list[dict[str, object]] = []
    for request, features, reason in trunk.look(requests):
        piece = request.key
        assert isinstance(piece, Piece)
        base = {"sample_id": piece.sample.sample_id}
        rows += [base | {"reason": reason}] if features is None else [base | {"feature": row} for row in features]
        if piece.last:
            yield rows
            rows = []


def feature_blocks(folder: Path) -> Iterator[tuple[list[str], F16]]:
    """The features in a journal's folder, part by part: sample ids (N,) and features (N, D)."""
    for part in sorted(folder.glob("*.parquet")):
        check_table(part, FEATURES)
        table = read_parquet(part)
        table = table.filter(table["feature"].is_valid())
        if table.num_rows:
            flat = table["feature"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            yield table["sample_id"].to_pylist(), flat.reshape(table.num_rows, -1)
