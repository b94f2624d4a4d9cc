"""A trained model opened for use: raw ids in, ranked items out, without the training data."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError
from graphrec.evaluation import rank
from graphrec.evaluation.user_items import UserItems
from graphrec.graphs.adjacency import Adjacency
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run
from graphrec.runs.files import clear_errors, write_folder
from graphrec.runs.manifest import MANIFEST, write_contents
from graphrec.runs.portable import portable_files
from graphrec.serving import embeddings, hub
from graphrec.serving.fold_in import FoldIn, check_history, history_scores
from graphrec.serving.ids import Unknown, codes_of, id_array
from graphrec.serving.lists import list_schema, write_lists
from graphrec.serving.mask import Mask
from graphrec.serving.selection import best_of

BLOCK = 4096
_LOG = logging.getLogger("graphrec.serving")


class Recommender:
    """A model with its raw ids, the pairs it was trained on, and names where they are known.

    Args:
        model: the trained model.
        vocabularies: raw ids by node type.
        names: names (N,) of str or None by node type.
        run: the run it comes from; needed to save or push it.
        mask: what is not served; more can be added by :meth:`hide`.
    """

    def __init__(
        self,
        model: GraphRecommender,
        vocabularies: Mapping[str, Vocabulary],
        *,
        names: Mapping[str, np.ndarray] | None = None,
        run: Run | None = None,
        mask: Mask | None = None,
    ) -> None:
        self.model = model.eval()
        self.run = run
        self.mask = mask
        self.vocabularies = dict(vocabularies)
        user_type, _, item_type = model.graph_inputs.target
        self.users, self.items = self.vocabularies[user_type], self.vocabularies[item_type]
        self.item_names = None if names is None else names.get(item_type)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] | Run,
        *,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        endpoint: str | None = None,
        token: str | None = None,
        allow_superseded: bool = False,
    ) -> Recommender:
        """Open a run; what its mask blocks is not served.

        Args:
            source: a :class:`Run`, a run folder, or the id of a repository on the hub (``owner/name``;
                ``hf://owner/name`` where a folder has that name). A folder comes first.
            device: where the model goes.
            revision: branch, tag or commit of a hub repository.
            endpoint: address of the hub; None: huggingface_hub's.
            token: token for the hub; None: the one huggingface_hub finds.
            allow_superseded: whether a run may be opened that another has taken the place of, because it was asked to
                forget.

        Raises:
            MissingFileError: there is neither such a folder nor such a repository.
            InputError: a file is not the one that was written, the run is of a newer format, or it is superseded.
        """
        if not isinstance(source, Run):
            folder = hub.locate(source, revision=revision, endpoint=endpoint, token=token)
            source = Run.open(folder, allow_superseded=allow_superseded)
        mask = Mask.read(source.path)
        return cls(source.model(device), source.vocabularies, names=source.names, run=source, mask=mask)

    def hide(self, mask: Mask) -> None:
        """Serve nothing of what ``mask`` blocks from now on, nor of what was blocked before."""
        self.mask = mask.union(self.mask)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write the run to another folder, in one step; a run that is there is replaced when the new one is
        complete. Paths of this machine are left out of the copy, as in :meth:`push_to_hub`.

        Raises:
            InputError: the recommender was made from a model in memory, or the folder holds something that is
                no run.
        """
        run, target = self._own_run(), Path(folder)
        if target.exists() and target.resolve() == run.path.resolve():
            return target
        if target.is_dir() and any(target.iterdir()):
            Run(target, allow_superseded=True)
        with clear_errors(target, "run", "What was there before is whole."):
            write_folder(target, lambda new: write_contents(new, portable_files(run)))
        return target

    def push_to_hub(
        self,
        repo_id: str,
        *,
        endpoint: str | None = None,
        token: str | None = None,
        private: bool = True,
        message: str = "Upload a graphrec run",
    ) -> str:
        """Upload the run to a repository of the Hugging Face hub, which is made when it is not there.

        The run holds the ids of the people it was trained on and what they did (``seen.safetensors``,
        ``ids/user.parquet``); the repository is therefore private unless said otherwise. Where the data lay on this
        machine is left out: ``root`` goes, and the path of a file or folder becomes its name.

        Args:
            repo_id: ``owner/name``.
            endpoint: address of the hub; None: huggingface_hub's.
            token: token for the hub; None: the one huggingface_hub finds.
            private: whether a repository that is made is private.
            message: the commit's message.

        Returns:
            The address of the commit.
        """
        return hub.push(self._own_run(), repo_id, endpoint=endpoint, token=token, private=private, message=message)

    def _own_run(self) -> Run:
        if self.run is None:
            raise InputError("this recommender was made from a model in memory; save it by fit(…, out=FOLDER) first.")
        return self.run

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.items)

    @property
    def seen(self) -> Adjacency:
        """The training pairs, (users x items)."""
        return self.model.graph_inputs.adjacency()

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: Iterable[Any] | None = None,
        unknown: Unknown = "skip",
    ) -> pd.DataFrame:
        """The ``k`` best items of each user.

        Args:
            users: raw ids, in the order wanted; None: all. For all users of a large set see
                :meth:`recommend_all`.
            k: how many items; a user with fewer left (seen ones and others than the candidates are left out)
                gets fewer rows.
            exclude_seen: whether items of the user's training pairs are left out.
            candidates: raw ids of the only items that may be recommended; None: all.
            unknown: what happens with ids that the model does not know: ``skip`` leaves them out and warns
                with their number, ``error`` raises, ``popular`` gives unknown users the items with the most
                training pairs, whose score is that number (unknown candidates are left out then, with a
                warning).

        Returns:
            Columns user, rank (from 1), item, score, and name where the items have names; by user, then rank.
            Equal scores are ordered by item id.

        Raises:
            InputError: ``k`` is not between 1 and the catalogue's size, or an id is unknown under
                ``unknown="error"``.
        """
        self._check_k(k)
        allowed = self._candidates(candidates, unknown)
        if users is None:
            codes = self._served(np.arange(len(self.users)))
            raw = self.users.raw[codes]
        else:
            raw = id_array(users)
            codes = codes_of(self.users, raw, "user", unknown, self._blocked("users"))
            kept = codes >= (-1 if unknown == "popular" else 0)
            codes, raw = codes[kept], raw[kept]
            known = self.users.raw[codes]
            # Numbers written as strings come back as numbers; only unknown ids stay as they were given.
            raw = known if (codes >= 0).all() else np.where(codes >= 0, known.astype(object), raw.astype(object))
        left_out = self._left_out(exclude_seen)
        parts = [self._frame(codes[part], raw[part], k, left_out, allowed) for part in _blocks(len(codes), BLOCK)]
        return pd.concat(parts, ignore_index=True) if parts else self._frame(codes, raw, k, left_out, allowed)

    def recommend_blocks(
        self,
        k: int = 10,
        *,
        block: int = BLOCK,
        exclude_seen: bool = True,
        candidates: Iterable[Any] | None = None,
    ) -> Iterator[pd.DataFrame]:
        """The frames of :meth:`recommend` for all users, a block of users at a time."""
        self._check_k(k)
        allowed = self._candidates(candidates, "skip")
        served, left_out = self._served(np.arange(len(self.users))), self._left_out(exclude_seen)
        for part in _blocks(len(served), block):
            yield self._frame(served[part], self.users.raw[served[part]], k, left_out, allowed)

    def recommend_all(
        self,
        out: str | os.PathLike[str],
        k: int = 10,
        *,
        block: int = BLOCK,
        exclude_seen: bool = True,
        candidates: Iterable[Any] | None = None,
    ) -> Path:
        """Write the ``k`` best items of every user to a parquet file, in bounded memory.

        Columns user and item (as the raw ids are: int64 or string), rank int32, score float32, and name where
        the items have names; a row group for each block of users. The file is whole or not there: it is
        written under another name first.

        Args:
            out: the file.
            k: how many items for each user.
            block: how many users are ranked and written at a time.
            exclude_seen: whether items of the user's training pairs are left out.
            candidates: raw ids of the only items that may be recommended; None: all.

        Returns:
            The file; the run's manifest names it from now on.
        """
        blocks = self.recommend_blocks(k, block=block, exclude_seen=exclude_seen, candidates=candidates)
        file = write_lists(blocks, out, list_schema(self.users, self.items, self.item_names is not None))
        return self.record(file, ("ids", "lists"))

    def recommend_for(
        self,
        history: Iterable[Any],
        weights: Sequence[float] | None = None,
        k: int = 10,
        *,
        user: Any = None,
        exclude_seen: bool = True,
        candidates: Iterable[Any] | None = None,
        unknown: Unknown = "skip",
        fold_in: FoldIn | None = None,
        unseen: float = 0.01,
        reg: float = 0.1,
    ) -> pd.DataFrame:
        """The ``k`` best items for somebody the model was not trained on, from a list of items.

        Models with :meth:`GraphRecommender.score_history` (item-item models, graph filters) score the history
        exactly as they score a user with that row. The others give the person a vector in closed form,
        :func:`graphrec.serving.fold_in.mean_vector` or :func:`graphrec.serving.fold_in.ridge_vector`, and score by its
        dot products; nothing is trained.

        Args:
            history: raw item ids.
            weights: how much each counts; None: 1.
            k: how many items.
            user: what stands in the column ``user``.
            exclude_seen: whether the history's items are left out.
            candidates: raw ids of the only items that may be recommended; None: all.
            unknown: as in :meth:`recommend`, for items of the history; a history without known items raises,
                except under ``popular``, where it gives the most popular items.
            fold_in: ``mean`` or ``ridge``; None: the exact scores where there are some, else ``ridge``.
            unseen: α of the ridge.
            reg: λ of the ridge.

        Returns:
            Columns as in :meth:`recommend`.
        """
        self._check_k(k)
        raw = id_array(history)
        given = torch.ones(len(raw)) if weights is None else torch.as_tensor(np.asarray(weights, dtype=np.float32))
        if given.shape != (len(raw),):
            raise InputError(f"weights: {len(raw)} numbers are expected, one for each item, {tuple(given.shape)} found")
        codes = codes_of(self.items, raw, "item", unknown, self._blocked("items"))
        items, given = torch.as_tensor(codes[codes >= 0]), given[torch.as_tensor(codes >= 0)]
        if len(items) == 0 and unknown == "popular":
            scores = self._popularity()
        else:
            check_history(given)
            scores = history_scores(self.model, items, given, fold_in, unseen, reg)
        allowed = self._candidates(candidates, unknown)
        chosen, values = best_of(scores, k, allowed, items if exclude_seen else None)
        owner = np.empty(len(chosen), dtype=object)
        owner[:] = [user] * len(chosen)
        return self._columns(owner, np.arange(1, len(chosen) + 1), chosen.numpy(), values.numpy())

    @torch.no_grad()
    def similar_items(
        self, items: Iterable[Any], k: int = 10, *, unknown: Literal["skip", "error"] = "skip"
    ) -> pd.DataFrame:
        """The ``k`` items nearest to each of some items.

        The score is the cosine of the final vectors where the model has some; for the others (item-item
        models) it is the score that somebody with this item alone would give.

        Args:
            items: raw ids.
            k: how many; the item itself is left out.
            unknown: ``skip`` leaves unknown ids out and warns with their number, ``error`` raises.

        Returns:
            Columns item, rank (from 1), similar, score, and name (of the similar item) where the items have
            names.
        """
        self._check_k(k)
        raw = id_array(items)
        codes = codes_of(self.items, raw, "item", unknown, self._blocked("items"))
        allowed = self._candidates(None, unknown)
        unit = None
        if self.model.encodes():
            unit = torch.nn.functional.normalize(self.model.encoded().items.float(), dim=1)
        elif not self.model.folds_in():
            raise InputError(f"{type(self.model).__name__} has neither item vectors nor scores of a history.")
        frames = []
        for code in codes[codes >= 0].tolist():
            own = torch.tensor([code])
            scores = unit @ unit[code] if unit is not None else self.model.score_history(own.to(self.model.device))
            chosen, values = best_of(scores.float().cpu(), k, allowed, own)
            frame = self._columns(
                np.repeat(self.items.raw[[code]], len(chosen)),
                np.arange(1, len(chosen) + 1),
                chosen.numpy(),
                values.numpy(),
            )
            frames.append(frame)
        empty = self._columns(self.items.raw[:0], np.arange(0), np.arange(0), np.zeros(0, np.float32))
        frame = pd.concat(frames, ignore_index=True) if frames else empty
        return frame.rename(columns={"user": "item", "item": "similar"})

    def export_embeddings(self, path: str | os.PathLike[str]) -> Path:
        """Write the final vectors of users and items with their raw ids, for a vector index or another
        program. The run's manifest names the file from now on.

        Args:
            path: ``.npz`` (arrays user_ids, users, item_ids, items; read without pickles), ``.safetensors``
                (tensors users and items; ids as int64, or as UTF-8 bytes with offsets) or ``.parquet``
                (columns kind, id, vector).

        Raises:
            InputError: the model's score is no dot product of vectors, or the file's ending is another.
        """
        encoded = self.model.encoded()
        users = self._served(np.arange(len(self.users)))
        items = np.setdiff1d(np.arange(len(self.items)), self._blocked("items"))
        with clear_errors(Path(path), "embeddings", "What was there before is whole."):
            file = embeddings.write(
                Path(path),
                users=(self.users.raw[users], encoded.users.detach().float().cpu().numpy()[users]),
                items=(self.items.raw[items], encoded.items.detach().float().cpu().numpy()[items]),
            )
        return self.record(file, ("ids", "vectors"))

    def record(self, file: str | os.PathLike[str], holds: Sequence[str]) -> Path:
        """Name a file that was made from the run in its manifest, so that it is found when somebody has to be
        forgotten. Where the manifest cannot be written, or belongs to the hub's cache, a warning is logged.

        Args:
            file: lists, vectors, an index, a page.
            holds: words of :data:`graphrec.runs.manifest.KINDS`.
        """
        path = Path(file)
        if self.run is None:
            return path
        if (self.run.path / MANIFEST).is_symlink():
            _LOG.warning("%s comes from the hub's cache: no manifest names %s.", self.run.path, path)
            return path
        try:
            self.run.record(path, holds)
        except InputError as error:
            _LOG.warning("The run's manifest does not name %s: %s", path, error)
        return path

    def _check_k(self, k: int) -> None:
        if not 1 <= int(k) <= self.num_items:
            raise InputError(f"k={k}: a number from 1 to {self.num_items}, the size of the catalogue, is expected")

    def _blocked(self, kind: Literal["users", "items"]) -> np.ndarray:
        """Codes of users or items that are not served, ascending."""
        return np.empty(0, np.int64) if self.mask is None else np.unique(getattr(self.mask, kind).numpy())

    def _served(self, users: np.ndarray) -> np.ndarray:
        return np.setdiff1d(users, self._blocked("users"), assume_unique=True)

    def _candidates(self, candidates: Iterable[Any] | None, policy: str) -> Tensor | None:
        if candidates is None:
            return None if self.mask is None else self.mask.open_items(None, self.num_items)
        raw = id_array(candidates)
        codes = codes_of(self.items, raw, "item", "error" if policy == "error" else "skip", self._blocked("items"))
        codes = np.unique(codes[codes >= 0])
        if len(codes) == 0:
            raise InputError("candidates: none of the items is known to the model")
        return torch.as_tensor(codes)

    def _popularity(self) -> Tensor:
        counts = self.seen.degrees(1).float().cpu()
        if self.mask is None:
            return counts
        users, items = self._seen_pairs()
        blocked = torch.isin(users, self.mask.users)
        blocked |= torch.isin(users * self.num_items + items, self.mask.pairs[0] * self.num_items + self.mask.pairs[1])
        return counts - torch.bincount(items[blocked], minlength=self.num_items)

    def _seen_pairs(self) -> tuple[Tensor, Tensor]:
        seen = UserItems.of(self.seen)
        return torch.repeat_interleave(torch.arange(len(seen)), seen.counts()), seen.items

    def _left_out(self, exclude_seen: bool) -> Adjacency | UserItems | None:
        """The items left out of each user's list."""
        if self.mask is None or not self.mask.pairs.shape[1]:
            return self.seen if exclude_seen else None
        pairs = torch.cat([self.mask.pairs, torch.stack(self._seen_pairs())], 1) if exclude_seen else self.mask.pairs
        users, items = pairs.unique(dim=1)
        indptr = torch.zeros(len(self.users) + 1, dtype=torch.int64)
        indptr[1:] = torch.bincount(users, minlength=len(self.users)).cumsum(0)
        return UserItems(indptr, items)

    @torch.no_grad()
    def _frame(
        self,
        codes: np.ndarray,
        raw: np.ndarray,
        k: int,
        left_out: Adjacency | UserItems | None,
        allowed: Tensor | None,
    ) -> pd.DataFrame:
        width = k if allowed is None else min(k, len(allowed))
        items = np.full((len(codes), width), -1, dtype=np.int64)
        scores = np.full((len(codes), width), -np.inf, dtype=np.float32)
        known = codes >= 0
        if known.any():
            users = torch.as_tensor(codes[known])
            found, values = rank(
                self.model,
                users.to(self.model.device),
                width,
                exclude=left_out,
                items=None if allowed is None else allowed.to(self.model.device),
            )
            items[known], scores[known] = found.cpu().numpy(), values.float().cpu().numpy()
        if not known.all():
            chosen, values = best_of(self._popularity(), width, allowed, None)
            items[~known, : len(chosen)], scores[~known, : len(chosen)] = chosen.numpy(), values.numpy()
        filled = np.isfinite(scores) & (items >= 0)
        row, column = np.nonzero(filled)
        ranks = np.cumsum(filled, axis=1)
        return self._columns(raw[row], ranks[row, column], items[row, column], scores[row, column])

    def _columns(self, owner: np.ndarray, ranks: np.ndarray, items: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
        frame = pd.DataFrame(
            {
                "user": owner,
                "rank": ranks.astype(np.int32),
                "item": self.items.raw[items],
                "score": scores.astype(np.float32),
            }
        )
        if self.item_names is not None:
            frame["name"] = self.item_names[items]
        return frame

    def __repr__(self) -> str:
        return f"Recommender({type(self.model).__name__}, {len(self.users)} users, {self.num_items} items)"


def _blocks(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
