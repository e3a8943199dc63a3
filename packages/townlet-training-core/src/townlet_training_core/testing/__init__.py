"""Conformance kits and doubles for those who write strategies, simulations and policies.

A kit is a function that takes a way to make the thing and raises ``AssertionError`` where it breaks its port.
"""
