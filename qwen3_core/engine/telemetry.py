"""OpenTelemetry spans for requests, where the `opentelemetry-api` package is installed."""

from typing import Any, Protocol

try:
    from opentelemetry import trace
except ImportError:
    trace = None  # type: ignore[assignment]


class Span(Protocol):
    """The part of an OpenTelemetry span that we use."""

    def set_attribute(self, key: str, value: Any, /) -> None:
        """Attach an attribute."""

    def record_exception(self, exception: BaseException, /) -> None:
        """Attach an exception."""

    def end(self) -> None:
        """End the span."""


def start_span(name: str, **attributes: str | int | bool) -> Span | None:
    """Start a child of the caller's current span; None without OpenTelemetry.

    Attributes get the prefix "qwen3.". They contain counts, times and the model's name, never
    texts.
    """
    if trace is None:
        return None
    span = trace.get_tracer("qwen3_core").start_span(name)
    for key, value in attributes.items():
        span.set_attribute(f"qwen3.{key}", value)
    return span
