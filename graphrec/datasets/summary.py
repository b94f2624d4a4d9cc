"""What a dataset holds, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graphrec.datasets.dataset import RecDataset


def summary(data: RecDataset) -> str:
    """Counts, sparsity, parts, side information and notes, one fact a line."""
    target = data.tables[data.target]
    positives = int(target.positive.sum())
    cells = data.num_users * data.num_items
    sparsity = f", sparsity {1 - positives / cells:.4%}" if cells else ""
    lines = [
        f"{data.name}: {data.num_users:,} users, {data.num_items:,} items, {positives:,} interactions "
        f"({data.target[1]}){sparsity}"
    ]
    if len(target) > positives:
        lines.append(f"  {len(target) - positives:,} labelled negatives")
    lines.append("  parts: " + ", ".join(f"{part} {count:,}" for part, count in data.part_counts().items()))
    if target.part is not None:
        for node_type, codes in ((data.target[0], target.source), (data.target[2], target.target)):
            trained = np.zeros(data.num_nodes[node_type], bool)
            trained[codes[(target.part == 0) & target.positive]] = True
            if not trained.all():
                lines.append(f"  {int((~trained).sum()):,} nodes of type {node_type} without a training interaction")
    for node_type, size in data.num_nodes.items():
        if node_type not in (data.target[0], data.target[2]):
            lines.append(f"  {size:,} nodes of type {node_type}")
    for edge_type, table in data.tables.items():
        if edge_type != data.target:
            extra = [name for name in table.columns if name not in ("source", "target", "edge_id")]
            lines.append(f"  {len(table):,} edges {edge_type}" + (f" with {', '.join(extra)}" if extra else ""))
    if len(data.relations):
        lines.append(f"  {len(data.relations):,} relations")
    for (node_type, name), matrix in data.features.items():
        have = int(data.feature_masks[node_type, name].sum())
        lines.append(f"  feature {name!r} of {have:,} nodes of type {node_type}, {matrix.shape[1]} wide")
    for kind in ("texts", "names", "kinds"):
        for node_type, strings in getattr(data, kind).arrow.items():
            lines.append(f"  {kind} of {len(strings) - strings.null_count:,} nodes of type {node_type}")
    lines += [f"  note: {note}" for note in data.notes]
    return "\n".join(lines)
