"""The measurement of a fast step runs on whatever there is; what it says on a GPU is not known here."""

from dataclasses import replace

import torch

from benchmarks import gpu_fast
from benchmarks.gpu import random_model
from benchmarks.peak import Clip
from mova_core.model.sparse import exact
from tests.fixtures.tiny_model import tiny_config

TINY = tiny_config()
TINY = replace(TINY, video=replace(TINY.video, in_channels=36, out_channels=16))
CPU = torch.device("cpu")
CLIP = Clip(height=64, width=96, frames=17)


def test_a_step_is_the_sum_of_its_parts():
    model = random_model(TINY, CPU, torch.float32)
    with torch.inference_mode():
        for stream in (True, False):
            parts = {part.name: part.seconds for part in gpu_fast.step_parts(model, CLIP, CPU, 1, stream)}
            names = [name.split(",")[0] for name in parts]
            assert names == ["picture", "teacher", "sound once", "sound once", "step of light", "step of high"]
            picture, teacher, here, there, light, high = parts.values()
            assert light == picture + 4 * min(here, there)
            assert high == light + teacher


def test_attention_is_timed_dense_and_sparse():
    with torch.inference_mode():
        dense, sparse = gpu_fast.attention_parts(TINY, CLIP, CPU, 1, kernel=exact)
    assert "120 tokens, dense" in dense.name
    assert sparse.name.endswith("a quarter of its tiles")
