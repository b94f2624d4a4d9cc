"""Graphs as sparse matrices: normalisation, sampling on the device, exchange with other libraries."""
