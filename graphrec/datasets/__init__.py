"""From raw files or frames to a :class:`RecDataset`: ids, interactions, knowledge graph, tags, modalities, splits."""

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.frames import from_table
from graphrec.datasets.load import load
from graphrec.datasets.notes import Note
from graphrec.datasets.pairs import Pairs
from graphrec.datasets.split_files import load_split, save_split
from graphrec.datasets.splits import Split, parse_split
from graphrec.datasets.tables import PARTS, EdgeTable, EdgeType
from graphrec.datasets.vocabulary import Vocabulary

__all__ = [
    "PARTS",
    "Builder",
    "EdgeTable",
    "EdgeType",
    "Note",
    "Pairs",
    "RecDataset",
    "Split",
    "Vocabulary",
    "from_table",
    "load",
    "load_split",
    "parse_split",
    "save_split",
]
