"""The rules as kernels, one file per phase of a tick; ``tick`` puts them in order.

They are compiled by numba: importing this package imports it.
"""
