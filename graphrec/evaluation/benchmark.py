"""How long the evaluation of all users takes, beside implicit's recommend-all where that is installed."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from graphrec.datasets.dataset import RecDataset
from graphrec.evaluation.evaluator import evaluate_ranking as evaluate
from graphrec.models.base import Encoded
from graphrec.randomness import generator


def benchmark(
    data: RecDataset,
    *,
    encoded: Encoded | None = None,
    dim: int = 64,
    k: int = 20,
    repeats: int = 5,
    threads: int = 2,
    seed: int = 0,
    peer: bool = True,
) -> dict[str, Any]:
    """Time the evaluation of every test user: scores, mask, top-k and metrics; one warm-up, then ``repeats`` turns.

    The peer's ``recommend`` does less (no metrics) on the same representations, the same mask and the same number of
    threads; the two take turns, so that both see the same machine.

    Args:
        data: the dataset.
        encoded: representations; None: normal ones drawn by the seed.
        dim: their width, where they are drawn.
        k: length of the lists.
        repeats: timed turns of each.
        threads: threads of each.
        seed: of the drawn representations.
        peer: whether to run implicit where it is installed.

    Returns:
        ``seconds`` (median), ``seconds_min``, ``seconds_max``, ``seconds_cpu`` (of the processor) of ours, the same
        with ``implicit_`` of the peer (None where it is not installed), ``ratio`` (peer over ours), ``agreement``
        (share of equal items in the lists), and the sizes.
    """
    if encoded is None:
        stream = generator(seed, "benchmark")
        encoded = Encoded(
            torch.randn(data.num_users, dim, generator=stream), torch.randn(data.num_items, dim, generator=stream)
        )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        evaluation = evaluate(encoded, data, ks=(k,))
        users = evaluation.protocol.users.numpy()
        theirs = _implicit(encoded, data, users, k, threads) if peer else None
        agreement = None
        if theirs is not None:
            found = np.sort(theirs(), axis=1)
            agreement = float((found == np.sort(evaluation.lists.numpy(), axis=1)).mean())
        ours_seconds: list[tuple[float, float]] = []
        peer_seconds: list[tuple[float, float]] = []
        for _ in range(repeats):
            ours_seconds.append(_timed(lambda: evaluate(encoded, data, ks=(k,))))
            if theirs is not None:
                peer_seconds.append(_timed(theirs))
    finally:
        torch.set_num_threads(before)
    result: dict[str, Any] = {
        "dataset": data.name,
        "users": len(users),
        "items": data.num_items,
        "dim": encoded.items.shape[1],
        "k": k,
        "threads": threads,
        "repeats": repeats,
        **_spread("seconds", ours_seconds),
        **_spread("implicit_seconds", peer_seconds),
        "agreement": agreement,
        "implicit": _implicit_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "load": os.getloadavg()[0],
    }
    result["ratio"] = result["implicit_seconds"] / result["seconds"] if peer_seconds else None
    return result


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    start, start_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - start_cpu


def _spread(name: str, seconds: list[tuple[float, float]]) -> dict[str, float | None]:
    if not seconds:
        return {name: None, f"{name}_min": None, f"{name}_max": None, f"{name}_cpu": None}
    clock, cpu = zip(*seconds, strict=True)
    return {
        name: statistics.median(clock),
        f"{name}_min": min(clock),
        f"{name}_max": max(clock),
        f"{name}_cpu": statistics.median(cpu),
    }


def _implicit_version() -> str | None:
    try:
        import implicit
    except ImportError:
        return None
    return str(implicit.__version__)


def _implicit(
    encoded: Encoded, data: RecDataset, users: np.ndarray, k: int, threads: int
) -> Callable[[], np.ndarray] | None:
    """implicit's own recommend over all users with these representations; None where it is not installed."""
    try:
        from implicit.cpu.matrix_factorization_base import MatrixFactorizationBase
    except ImportError:
        return None
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    class Fixed(MatrixFactorizationBase):
        """A model with given representations."""

        def fit(self, *args: object, **options: object) -> None:
            """Nothing to learn."""

        def save(self, *args: object, **options: object) -> None:
            """Nothing to keep."""

    model = Fixed(num_threads=threads)
    model.user_factors = encoded.users.cpu().numpy().astype(np.float32)
    model.item_factors = encoded.items.cpu().numpy().astype(np.float32)
    train = data.pairs("train")
    matrix = csr_matrix(
        (np.ones(len(train.items), np.float32), train.items.astype(np.int32), train.indptr.astype(np.int32)),
        shape=(data.num_users, data.num_items),
    )

    def recommend() -> np.ndarray:
        # It runs its own threads and asks for a BLAS with one.
        with threadpool_limits(limits=1, user_api="blas"):
            found = [
                model.recommend(part, matrix[part], N=k, filter_already_liked_items=True)[0]
                for part in np.array_split(users, max(1, len(users) // 1000))
            ]
        return np.concatenate(found)

    return recommend
