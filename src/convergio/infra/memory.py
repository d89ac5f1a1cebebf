"""Garbage collection for processes that move many short-lived events.

CPython's default looks for cycles after every 700 allocations and walks the whole heap often; the
hot path makes none, and the walks cost a third of its time. A process of ours calls `settle` once
after its imports: what exists then is never walked again, and the rest a hundred times less often.
"""

import gc


def settle() -> None:
    """Freeze what is loaded and let the collector run rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)
