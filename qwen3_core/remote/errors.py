"""What can go wrong with a server; none of it shows a text or a key."""


class ServerError(RuntimeError):
    """A server could not be reached, refused a request, or gave an answer that makes no sense."""


class SelfCheckError(ServerError):
    """A server answers, but not as a Qwen3 model does that is set up as published."""


class ServerWarning(UserWarning):
    """A server answers, but a little differently from the published model."""
