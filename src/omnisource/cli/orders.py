"""What `omnisource collect` is asked to do: by a recipe, or by class names and sources on the command line."""

from pathlib import Path

from pydantic import ValidationError

from omnisource.collect import Order, order_of
from omnisource.errors import UserError
from omnisource.recipe import Collect, CollectSource, load_recipe, read_names
from omnisource.recipe.load import check, parse_yaml, set_key
from omnisource.workspace import default_workspace


def order_from(
    recipe: Path | None,
    classes: Path | None,
    sources: str | None,
    workspace: Path | None,
    overrides: list[str],
    allow_private: bool,
    checking: bool,
) -> tuple[Order, Path]:
    """The order, and the folder of its workspace. Raises `UserError` where recipe and options do not fit together."""
    private = ["collect.allow_private=true"] if allow_private else []
    if recipe is not None:
        if classes is not None or sources is not None:
            raise UserError("a recipe has classes and sources of its own: leave out --classes and --sources")
        loaded = load_recipe(recipe, [*overrides, *private])
        return order_of(loaded), workspace or default_workspace(loaded)
    if not checking and (classes is None or not sources or workspace is None):
        raise UserError("give a recipe, or --classes FILE --sources NAME[:ARGUMENT],... --workspace DIR")
    values: dict[str, object] = {}
    for override in [*overrides, *private]:
        key, _, text = override.partition("=")
        set_key(values, key.removeprefix("collect."), parse_yaml(text, f"--set {override}")[0], f"--set {override}")
    values["sources"] = [_source(text) for text in (sources or "").split(",") if text.strip()]
    settings = check(Collect, values, {}, "collect")
    order = Order(settings, _names(classes) if classes else [], lambda path: Path(path).expanduser().resolve(), {})
    return order, workspace or Path("workspaces/collect")


def _source(text: str) -> CollectSource:
    try:
        return CollectSource.model_validate(text)
    except ValidationError as error:
        raise UserError(f"--sources {text}: {error.errors()[0]['msg']}") from None


def _names(path: Path) -> list[str]:
    found = list(dict.fromkeys(read_names(path, "the file of --classes")))
    if not found:
        raise UserError(f"{path}: no class names in here, one a line")
    return found
