"""One loaded model per process and name, run by one thread that batches all callers' work."""
