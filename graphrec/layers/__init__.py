"""Propagation, dropout and losses: functions that know tensors and edges, nothing of datasets or training."""
