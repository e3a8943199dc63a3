"""Replay data: samples and batches (`sample`, `npz`, `dataset`, `manifest`), and columns of transitions."""
