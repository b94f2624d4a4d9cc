"""From raw files or frames to a :class:`RecDataset`: ids, interactions, knowledge graph, tags, modalities, splits."""

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import Note, Pairs, RecDataset
from graphrec.datasets.load import load
from graphrec.datasets.tables import PARTS, EdgeTable, EdgeType
from graphrec.datasets.vocabulary import Vocabulary

__all__ = ["PARTS", "Builder", "EdgeTable", "EdgeType", "Note", "Pairs", "RecDataset", "Vocabulary", "load"]
