"""Block-sparse self-attention of the video: this pack's own, and ComfyUI's node for it where there is one.

ComfyUI's *Model Sparse Attention* replaces the attention of a MODEL where queries, keys and values are as many; on the
low-memory path, whose queries come in rows, it would leave all of it dense without a word. There the queries are given
whole, and the estimate counts that. It is asked for the video's self-attention alone.
"""

import logging
from dataclasses import dataclass

import comfy.model_management
from torch import Tensor

from ....mova_core.errors import MovaError, PatchError
from ....mova_core.estimate import ChunkSizes
from ....mova_core.model import sparse
from ....mova_core.model.sparse import Sparsity
from ....mova_core.ops import Attention, Place
from ....mova_core.sampling.schedule import Span
from ..keys import Options, asking
from ..patching.patcher import MovaPatcher

log = logging.getLogger("mova")
OVERRIDE = "optimized_attention_override"
COMFYS_OWN = "nodes_sparse_attention"  # the module of ComfyUI's node


@dataclass(frozen=True)
class SparseSpan:
    """Where in the schedule self-attention is sparse, and how."""

    sparsity: Sparsity
    span: Span


def with_sparse_attention(model: MovaPatcher, sparsity: Sparsity, dense_share: float) -> MovaPatcher:
    """A clone of `model` whose video self-attention is sparse after the first `dense_share` of the steps.

    Raises:
        PatchError: ComfyUI's own sparse attention is on the MODEL already.
    """
    changed = model.clone()
    options = changed.model_options.setdefault("transformer_options", {})
    if is_comfys(options):
        raise PatchError("this MODEL has ComfyUI's 'Model Sparse Attention' on it already; use one of the two")
    asked = None if sparsity.sparsity == 0 else SparseSpan(sparsity, Span(dense_share, 1.0))
    changed.model_options["transformer_options"] = asking(options, sparse=asked)
    return changed


def is_comfys(options: Options) -> bool:
    """Whether ComfyUI's own sparse attention is on top of these transformer options."""
    override = options.get(OVERRIDE)
    return getattr(override, "__module__", "").rpartition(".")[2] == COMFYS_OWN


def whole_queries(rows: ChunkSizes, options: Options) -> ChunkSizes:
    """The path of a run on which ComfyUI's sparse attention works: its queries are not held in rows."""
    if rows.queries is None or not is_comfys(options):
        return rows
    log.info("Model Sparse Attention: queries are held whole, or it would stay dense on the low-memory path")
    return ChunkSizes(feed_forward=rows.feed_forward, queries=None)


def beside_video(options: Options) -> Options:
    """Options for any attention but the video's own: without ComfyUI's sparse attention."""
    return {key: value for key, value in options.items() if key != OVERRIDE} if is_comfys(options) else options


def active(asked: SparseSpan | None, options: Options, shift: float) -> Sparsity | None:
    """How sparse this forward is; None for dense."""
    sigmas = options.get("sigmas")
    if asked is None or sigmas is None or not asked.span.covers(float(sigmas[0]), shift):
        return None
    return asked.sparsity


def attended(asked: SparseSpan | None, frames: int) -> float:
    """The share of the video's self-attention that a run over so many latent frames computes, its dense steps included."""
    if asked is None:
        return 1.0
    share = sparse.attended_share(asked.sparsity, frames)
    return share + (1 - share) * (1 - (asked.span.end - asked.span.start))


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, place: Place, sparsity: Sparsity, dense: Attention) -> Tensor:
    """By the fused kernel on a CUDA or ROCm card, in plain torch elsewhere.

    Raises:
        MovaError: the kernel cannot be compiled here.
    """
    if not comfy.model_management.is_device_cuda(q.device):
        return sparse.attend(q, k, v, heads, place, sparsity, dense=dense)
    try:
        return sparse.attend(q, k, v, heads, place, sparsity, kernel=sparse.fused, dense=dense)
    except (ImportError, RuntimeError) as error:
        if comfy.model_management.is_oom(error):
            raise
        raise MovaError(
            f"PyTorch could not compile flex attention here ({type(error).__name__}: {error}). It needs Triton: update "
            "PyTorch, or leave 'MOVA Sparse Attention' out"
        ) from error
