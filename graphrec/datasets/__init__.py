"""From raw files or frames to a :class:`RecDataset`: ids, interactions, knowledge graph, tags, modalities, splits."""

from graphrec.datasets.builder import Builder
from graphrec.datasets.cache import open_dataset, save_dataset
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.frames import from_table
from graphrec.datasets.knowledge import KnowledgeGraph
from graphrec.datasets.knowledge_table import Attribute, kg_from_table
from graphrec.datasets.leaks import RelationLeak, relation_leaks
from graphrec.datasets.load import load
from graphrec.datasets.notes import Note
from graphrec.datasets.pairs import Pairs
from graphrec.datasets.pykeen import from_pykeen, to_pykeen
from graphrec.datasets.split_files import load_split, save_split
from graphrec.datasets.splits import Split, parse_split
from graphrec.datasets.tables import PARTS, EdgeTable, EdgeType
from graphrec.datasets.triple_files import read_link, read_triples, write_triples
from graphrec.datasets.vocabulary import Vocabulary

__all__ = [
    "PARTS",
    "Attribute",
    "Builder",
    "EdgeTable",
    "EdgeType",
    "KnowledgeGraph",
    "Note",
    "Pairs",
    "RecDataset",
    "RelationLeak",
    "Split",
    "Vocabulary",
    "from_pykeen",
    "from_table",
    "kg_from_table",
    "load",
    "load_split",
    "open_dataset",
    "parse_split",
    "read_link",
    "read_triples",
    "relation_leaks",
    "save_dataset",
    "save_split",
    "to_pykeen",
    "write_triples",
]
