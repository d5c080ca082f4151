"""OpenTelemetry spans for requests, where the `opentelemetry-api` package is installed."""

from typing import Any, Protocol

try:
    from opentelemetry import trace
except ImportError:
    trace = None  # type: ignore[assignment]


class Span(Protocol):
    """What we use of an OpenTelemetry span."""

    def set_attribute(self, key: str, value: Any, /) -> None:
        """Attach a value."""

    def record_exception(self, exception: BaseException, /) -> None:
        """Attach an error."""

    def end(self) -> None:
        """Close the span."""


def start_span(name: str, **attributes: str | int | bool) -> Span | None:
    """Start a span below the caller's current one; None without OpenTelemetry.

    Attributes get the prefix "qwen3.". They hold counts, times and the model's name, never texts.
    """
    if trace is None:
        return None
    span = trace.get_tracer("qwen3_core").start_span(name)
    for key, value in attributes.items():
        span.set_attribute(f"qwen3.{key}", value)
    return span
