"""The packed forward pass: checkpoints, layers, and the last hidden state of every sequence."""
