"""One loaded model for all that name it, run by one thread that mixes all callers' work."""
