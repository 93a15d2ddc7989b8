"""Self-attention that leaves out what hardly matters."""

from typing import Any

from comfy_api.latest import io

from ..mova_core.model.sparse import Sparsity
from . import inputs
from .base import MovaNode
from .host.model import sparse
from .host.model.base_model import check_model


class MovaSparseAttention(MovaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MOVASparseAttention",
            display_name="MOVA Sparse Attention",
            category="MOVA/loaders",
            description="Leave most of the video's self-attention out: each block of 4 x 4 x 4 tokens asks the blocks that "
            "matter most to it. Prism was trained for it; MOVA was not. Text, bridge and sound stay whole. For large clips: "
            "at 720x1280 self-attention is 84 % of the work.",
            search_aliases=["block sparse", "BSA", "sol-attn", "VSA", "speed", "flex attention"],
            inputs=[
                io.Model.Input("model", tooltip="MOVA or Prism."),
                io.Float.Input(
                    "sparsity",
                    default=0.75,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="Share of the blocks that is left out. 0.75 is what Prism was published with; 0 is dense.",
                ),
                io.Float.Input(
                    "cdf",
                    default=0.2,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Share of the attention that is kept whatever the sparsity. It matters above 0.8.",
                ),
                inputs.percent("dense_share", 0.0, "Share of the steps done before it begins: those are dense."),
            ],
            outputs=[io.Model.Output(display_name="MODEL")],
        )

    @classmethod
    def run(cls, model: Any, sparsity: float, cdf: float, dense_share: float) -> io.NodeOutput:
        check_model(model)
        return io.NodeOutput(sparse.with_sparse_attention(model, Sparsity(sparsity=sparsity, cdf=cdf), dense_share))
