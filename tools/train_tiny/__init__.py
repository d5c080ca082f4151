"""Training of the bundled pair of tiny Qwen3-architecture models (see README.md here)."""
