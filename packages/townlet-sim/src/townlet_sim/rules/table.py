"""Arrays handed to kernels through one table of addresses and shapes, and the counters by which threads share work.

Unpacking forty arrays from Python takes longer than a tick of a small town; reading them from a table takes nothing.
Whoever makes the table keeps the arrays alive (:class:`townlet_sim.engine.TownBatch` does).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numba.np.numpy_support import from_dtype
from numpy.typing import NDArray

from townlet_sim.config import TownConfig
from townlet_sim.layout import Layout, layout_arrays
from townlet_sim.state import allocate_state, out_sample, rule_arrays

__all__ = ["FINISHED", "NEXT", "add", "read_layout", "read_out", "read_rules", "read_state"]

T = TypeVar("T", bound=tuple[Any, ...])
NEXT, FINISHED, COUNTERS = range(3)  # the first words: the next share of towns, towns that are done
_NAMED_TUPLE: Any = numba.types.NamedTuple  # without types of its own
_FILL: Any = populate_array


def _reader(sample: T, begin: int) -> tuple[Callable[[NDArray[np.int64]], T], int]:
    """Return a function of kernels that reads arrays like ``sample`` from a table, and where the next ones begin."""
    fields = [numba.types.Array(from_dtype(array.dtype), array.ndim, "C") for array in sample]
    made = _NAMED_TUPLE(fields, type(sample))
    end = begin + sum(1 + field.ndim for field in fields)

    @intrinsic
    def read(_typing: Any, table: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            words = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            integer = words.type.pointee
            at = begin
            arrays = []
            for field in fields:
                address, *shape = (builder.load(builder.gep(words, [integer(at + k)])) for k in range(1 + field.ndim))
                at += 1 + field.ndim
                size = integer(context.get_abi_sizeof(context.get_data_type(field.dtype)))
                strides = [size]
                for extent in reversed(shape[1:]):
                    strides.insert(0, builder.mul(strides[0], extent))
                array = context.make_array(field)(context, builder)
                data = builder.inttoptr(address, array.data.type)
                _FILL(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
                arrays.append(array._getvalue())
            return context.make_tuple(builder, made, arrays)

        return made(table), generate

    return cast("Callable[[NDArray[np.int64]], T]", read), end


_DOT = Layout(np.ones((1, 1), np.bool_), ())
read_state, _end = _reader(allocate_state(towns=1, agents=1, objects=1, height=1, width=1), COUNTERS)
read_layout, _end = _reader(layout_arrays((_DOT,), agents=1, variant="hybrid"), _end)
read_rules, _end = _reader(rule_arrays(TownConfig(), workplaces=1, fridge=-1), _end)
read_out, _end = _reader(out_sample(), _end)


@intrinsic
def _fetch_add(_typing: Any, table: Any, place: Any, amount: Any) -> Any:  # noqa: ARG001  # numba reads the names
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(words, [arguments[1]]), arguments[2], "seq_cst")

    return numba.types.int64(table, numba.types.int64, numba.types.int64), generate


add = cast("Callable[[NDArray[np.int64], int, int], int]", _fetch_add)
"""``add(table, place, amount)``: add to a counter, as one indivisible operation; returns what it was before."""
