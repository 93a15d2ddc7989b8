"""Self-attention over a tower's tokens, cross-attention to text or to the other tower.

Queries and keys are RMS-normalised over the full width, before the heads are split. A per-head norm fails silently.

Axes: B batch, L tokens, S context rows, D width, N heads, K head width.
"""

from typing import Any

from torch import Tensor, nn

from ..ops import Ops, Runtime


class Projections(nn.Module):
    """q, k, v, o and the two norms, under upstream's names. Keys and values read `context_width` channels."""

    def __init__(self, width: int, context_width: int, heads: int, eps: float, *, ops: Ops, **factory: Any) -> None:
        super().__init__()
        self.heads = heads
        self.q = ops.Linear(width, width, **factory)
        self.k = ops.Linear(context_width, width, **factory)
        self.v = ops.Linear(context_width, width, **factory)
        self.o = ops.Linear(width, width, **factory)
        self.norm_q = ops.RMSNorm(width, eps=eps, **factory)
        self.norm_k = ops.RMSNorm(width, eps=eps, **factory)

    def queries(self, x: Tensor) -> Tensor:
        """(B, L, N, K) normalised queries."""
        return self.norm_q(self.q(x)).unflatten(-1, (self.heads, -1))  # type: ignore[no-any-return]

    def keys(self, context: Tensor) -> Tensor:
        """(B, S, N, K) normalised keys."""
        return self.norm_k(self.k(context)).unflatten(-1, (self.heads, -1))  # type: ignore[no-any-return]


class SelfAttention(Projections):
    """Full attention over one tower's tokens, queries and keys turned by their position."""

    def rotated_queries(self, x: Tensor, table: Any, start: int, runtime: Runtime) -> Tensor:
        return runtime.rotary.rotate(self.queries(x), table, start).flatten(2)  # (B, L, D)

    def rotated_keys(self, x: Tensor, table: Any, start: int, runtime: Runtime) -> Tensor:
        return runtime.rotary.rotate(self.keys(x), table, start).flatten(2)


class TextAttention(Projections):
    """Attention to the prompt. No mask: the zero rows that pad it to 512 are real keys the model was trained on."""

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the prompt, (B, S, D) each: the same for every chunk of queries."""
        return self.keys(context).flatten(2), self.v(context)

    def forward(self, x: Tensor, keys_values: tuple[Tensor, Tensor], site: str, runtime: Runtime) -> Tensor:
        q = self.queries(x).flatten(2)
        del x
        y = runtime.attention(q, *keys_values, self.heads, site)
        del q
        return self.o(y)  # type: ignore[no-any-return]
