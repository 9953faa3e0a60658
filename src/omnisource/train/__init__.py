"""Joint training: the pool of units, the plan of batches, the loader, the loop, and the stages made of them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from omnisource.train.join import build_pool
from omnisource.train.parts import target_parts
from omnisource.train.plan import Plan, Slots
from omnisource.train.pool import Pool, Unit

if TYPE_CHECKING:
    from omnisource.train.begin import Changed, train
    from omnisource.train.frozen import trunk_digest
    from omnisource.train.listing import write_plan
    from omnisource.train.loop import TrainResult
    from omnisource.train.record import differences
    from omnisource.train.stages import (
        judge_basis,
        student_basis,
        teacher_basis,
        train_judge,
        train_judges,
        train_student,
        train_teacher,
    )

__all__ = [
    "Changed",
    "Plan",
    "Pool",
    "Slots",
    "TrainResult",
    "Unit",
    "build_pool",
    "differences",
    "judge_basis",
    "student_basis",
    "target_parts",
    "teacher_basis",
    "train",
    "train_judge",
    "train_judges",
    "train_student",
    "train_teacher",
    "trunk_digest",
    "write_plan",
]

# Imported when first asked for: the processes that decode start without torch.
_LAZY = {
    "Changed": "begin",
    "train": "begin",
    "TrainResult": "loop",
    "differences": "record",
    "judge_basis": "stages",
    "student_basis": "stages",
    "teacher_basis": "stages",
    "train_judge": "stages",
    "train_judges": "stages",
    "train_student": "stages",
    "train_teacher": "stages",
    "trunk_digest": "frozen",
    "write_plan": "listing",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
