"""A second implementation of the town's rules: slow, obvious, written from docs/town-rules.md alone.

It shares maps and options with the package, and nothing else: no kernels, no numpy, no packed state.
"""
