"""Errors and warnings about a server; their messages contain no texts and no keys."""


class ServerError(RuntimeError):
    """A server could not be reached, refused a request, or sent an invalid answer."""


class SelfCheckError(ServerError):
    """A server answers, but not like a Qwen3 model that is set up as published."""


class ServerWarning(UserWarning):
    """A server answers slightly differently from the published model."""
