"""Propagation, dropout and losses: functions that know tensors and edges, nothing of datasets or training.

The sparse products stand here, for all else is built on them; every other layer is imported from its own module, as in
``from graphrec.layers.dropout import dropout``.

``graphrec.layers.spmm`` is the function. The module of the same name is reached by ``from graphrec.layers.spmm import
…``, which looks modules up by their names and never sees the function.
"""

from graphrec.layers.spmm import sddmm, spmm

__all__ = ["sddmm", "spmm"]
