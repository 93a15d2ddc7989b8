"""The nodes, one list."""

from comfy_api.latest import ComfyExtension, io

from .conditioning import MovaImageToVideoAudio, MovaTextEncode
from .decode import MovaDecode
from .guidance import MovaBridgeStrength, MovaGuider
from .loaders import MovaAudioVAELoader, MovaLoader, MovaModelLoader
from .sampling import MovaJoinExperts, MovaSampler, MovaSplitExperts

NODES: list[type[io.ComfyNode]] = [
    MovaLoader,
    MovaTextEncode,
    MovaImageToVideoAudio,
    MovaSampler,
    MovaDecode,
    MovaSplitExperts,
    MovaJoinExperts,
    MovaBridgeStrength,
    MovaGuider,
    MovaModelLoader,
    MovaAudioVAELoader,
]


class MovaExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
