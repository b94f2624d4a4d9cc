"""Trained models in use: top-k lists for raw ids, similar items, new users, vectors for other programs."""

from graphrec.serving.recommender import Recommender

__all__ = ["Recommender"]
