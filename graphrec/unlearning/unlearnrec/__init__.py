"""UnlearnRec: a pre-trained encoder of what edges have left in a model (arXiv 2505.22649)."""
