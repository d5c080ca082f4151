"""Refuses a config with an argument of the search that nothing reads.

LangChain ignores undeclared names in a config's "configurable". If a filter is ignored, the results
contain everybody's documents. So a name of an argument is accepted only if something declares it,
gets the config, or searches with the same value.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator, RunnableLambda
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.runnables.configurable import RunnableConfigurableFields
from langchain_core.runnables.utils import accepts_config

from langchain_qwen3._first_stage_arguments import FILTER_LIKE

NAMES: Final = {"k", "top_n", "search_kwargs", "score_threshold"}
"""Arguments of the search besides filters."""

READ_ELSEWHERE: Final = "__qwen3_read_elsewhere"
"""Entry of a config: names that other components read."""


def check_config(
    configurable: Mapping[str, Any],
    stage: object,
    *,
    own: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    declared: Iterable[str] = (),
) -> dict[str, Any]:
    """Refuse a config with an argument of the search that nothing reads.

    Args:
        configurable: The config's "configurable".
        stage: The retriever or first stage that gets the config.
        own: The settings of the retriever around it; an entry that equals one is harmless.
        given: The call's arguments, which count as read from the config.
        declared: Further names that are read.

    Returns:
        The "configurable" for what lies within, where names that are read here are not refused.

    Raises:
        TypeError: If nothing reads a name; says how to declare it.
    """
    doubtful = {name: value for name, value in configurable.items() if _is_argument(name)}
    if not doubtful:
        return dict(configurable)
    own, given = _spread(own or {}), _spread(given or {})
    before = {*declared, *given, *configurable.get(READ_ELSEWHERE, ())}
    read = [
        name
        for name, value in doubtful.items()
        if name in before or _holds(own, name, value) or _gives(given, name, value)
    ]
    within = {**configurable, READ_ELSEWHERE: read}
    reached = list(_reached(stage))
    if any(_may_read_all(each) for each in reached):
        return within
    known = {*read, *declared_by(stage), *(name for each in reached for name in _bound(each))}
    overriding = {name: value for name, value in own.items() if value}
    searches = [_searched_with(each) | overriding for each in reached if _is_search(each)]
    for name, value in doubtful.items():
        if name in known or (searches and all(_holds(each, name, value) for each in searches)):
            continue
        raise TypeError(_message(name, [each for each in reached if _is_own(each)]))
    return within


def declared_by(runnable: object) -> set[str]:
    """The ids that a runnable or one within it declares as configurable."""
    found: set[str] = set()
    for each in _reached(runnable):
        try:
            found |= {spec.id for spec in each.config_specs}
        except ValueError:  # its parts declare one id with different defaults
            continue
    return found


@contextmanager
def ambient(config: RunnableConfig) -> Iterator[None]:
    """Give a config also to what is called without one, as LangChain's sequences do.

    Many retrievers call the ones within them with callbacks only.
    """
    token = var_child_runnable_config.set(config)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


class DeclaredFields(RunnableConfigurableFields[str, list[Document]]):
    """A retriever with configurable fields that tells it their ids."""

    def _prepare(
        self, config: RunnableConfig | None = None
    ) -> tuple[Runnable[str, list[Document]], RunnableConfig]:
        runnable, config = super()._prepare(config)
        if runnable is not self.default:  # the default serves other calls too
            runnable._declared = frozenset(spec.id for spec in self.fields.values())  # type: ignore[attr-defined]  # noqa: SLF001 - this module's own
        return runnable, config


def _is_argument(name: object) -> bool:
    return name in NAMES or str(name).lower() in FILTER_LIKE


def _spread(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, and those within their search_kwargs."""
    within = arguments.get("search_kwargs")
    return {**(within if isinstance(within, Mapping) else {}), **arguments}


def _reached(runnable: object, seen: set[int] | None = None) -> Iterator[Runnable[Any, Any]]:
    """The runnable and all within it, which get its config too."""
    seen = set() if seen is None else seen
    if id(runnable) in seen:
        return
    parts: Iterable[object] = ()
    if isinstance(runnable, Runnable):
        parts = _held_by(runnable)
    elif isinstance(runnable, Mapping):
        parts = runnable.values()
    elif isinstance(runnable, list | tuple):
        parts = runnable
    else:
        return
    seen.add(id(runnable))
    if isinstance(runnable, Runnable):
        yield runnable
    for part in parts:
        yield from _reached(part, seen)


def _held_by(runnable: Runnable[Any, Any]) -> Iterator[object]:
    if isinstance(runnable, RunnableLambda):
        yield from runnable.deps
    held = [
        *vars(runnable).values(),
        *(getattr(runnable, "__pydantic_private__", None) or {}).values(),
    ]
    yield from held
    if _is_own(runnable):  # it may wrap others in an object of its own
        for each in held:
            yield from getattr(each, "__dict__", {}).values()


def _is_own(runnable: Runnable[Any, Any]) -> bool:
    """Whether it is a retriever of the user's own whose search gets no config."""
    kind = type(runnable)
    ours = kind.__module__.startswith("langchain")
    return not ours and isinstance(runnable, BaseRetriever) and kind.invoke is BaseRetriever.invoke


def _may_read_all(runnable: Runnable[Any, Any]) -> bool:
    """Whether a runnable gets the config, and so may read any name of it."""
    if isinstance(runnable, RunnableLambda):
        functions = (getattr(runnable, name, None) for name in ("func", "afunc"))
        return any(accepts_config(function) for function in functions if function is not None)
    if isinstance(runnable, RunnableGenerator):
        return True
    return not type(runnable).__module__.startswith("langchain") and not _is_own(runnable)


def _bound(runnable: Runnable[Any, Any]) -> Iterable[str]:
    return _spread(runnable.kwargs) if isinstance(runnable, RunnableBindingBase) else ()


def _is_search(runnable: Runnable[Any, Any]) -> bool:
    """Whether it is a retriever that itself searches."""
    within = list(_reached(runnable))[1:]
    return isinstance(runnable, BaseRetriever) and not any(
        isinstance(part, BaseRetriever) for part in within
    )


def _searched_with(runnable: Runnable[Any, Any]) -> dict[str, Any]:
    """A retriever's own arguments of its search."""
    own = {name: getattr(runnable, name) for name in _SETTINGS if hasattr(runnable, name)}
    return _spread(own)


_SETTINGS: Final = ("search_kwargs", "k", "top_n")


def _holds(arguments: Mapping[str, Any], name: str, value: object) -> bool:
    """Whether these arguments have the same effect as the config's entry."""
    if name in arguments:
        return bool(arguments[name] == value)
    if name.lower() not in FILTER_LIKE:
        return False
    return any(arguments[key] == value for key in arguments if key.lower() in FILTER_LIKE)


def _gives(given: Mapping[str, Any], name: str, value: object) -> bool:
    """Whether a call passes the config's entry, perhaps under other names."""
    if name == "search_kwargs" and isinstance(value, Mapping):
        return all(key in given and given[key] == each for key, each in value.items())
    return _holds(given, name, value)


def _message(name: str, own: list[Runnable[Any, Any]]) -> str:
    field = name if name in ("k", "top_n") else "search_kwargs"
    way = "pass it to invoke or bind"
    if name != "score_threshold":
        way = (
            f"declare it with retriever.configurable_fields({field}=ConfigurableField("
            f'"{field}")), or {way}'
        )
    if own:
        way += f"; if {type(own[0]).__name__} reads it, declare it in that class's config_specs"
    return f"config['configurable'] holds {name}, but this retriever does not read it: {way}"
