"""The nodes, one list."""

from comfy_api.latest import ComfyExtension, io

from .conditioning import MovaGuideFrames, MovaImageToVideoAudio, MovaTextEncode
from .decode import MovaDecode
from .extend import MovaExtend, MovaJoinClips
from .fast import MovaFastSampler
from .film import MovaFilm
from .film_steps import MovaFilmBegin, MovaFilmBody, MovaFilmJoin, MovaFilmTake
from .guidance import MovaBridgeStrength, MovaGuider
from .host import logs
from .latents import MovaLoadLatent, MovaSaveLatent
from .loaders import MovaAttachSound, MovaAudioVAELoader, MovaLoader, MovaModelLoader
from .loras import MovaDistillation, MovaLoraLoader
from .memory import MovaMemory
from .meter import MovaMeter, MovaPickDraft
from .preflight import MovaPreflight
from .prompting import MovaPromptBuilder
from .replacements import register
from .report import MovaBugReport
from .sampling import MovaJoinExperts, MovaSampler, MovaSplitExperts
from .segments import MovaJoinSegments, MovaSaveSegment, MovaSegmentTail
from .shots import MovaFilmFastSampler, MovaFilmSampler, MovaShot, MovaShotsFromText
from .sparse import MovaSparseAttention
from .streams import MovaMask, MovaPictureToSound, MovaSoundToPicture
from .training import MovaTrainLora
from .training_budget import MovaTrainingBudget
from .training_clips import MovaTrainingClips
from .video_to_video import MovaVideoToVideo

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
    MovaGuideFrames,
    MovaSoundToPicture,
    MovaPictureToSound,
    MovaMask,
    MovaExtend,
    MovaJoinClips,
    MovaPromptBuilder,
    MovaMeter,
    MovaPickDraft,
    MovaSaveSegment,
    MovaSegmentTail,
    MovaJoinSegments,
    MovaModelLoader,
    MovaAudioVAELoader,
    MovaLoraLoader,
    MovaBugReport,
    MovaMemory,
    MovaAttachSound,
    MovaPreflight,
    MovaFastSampler,
    MovaSparseAttention,
    MovaTrainingClips,
    MovaTrainLora,
    MovaTrainingBudget,
    MovaSaveLatent,
    MovaLoadLatent,
    MovaVideoToVideo,
    MovaFilm,
    MovaShotsFromText,
    MovaShot,
    MovaFilmSampler,
    MovaFilmFastSampler,
    MovaFilmBody,
    MovaFilmBegin,
    MovaFilmTake,
    MovaFilmJoin,
    MovaDistillation,
]


class MovaExtension(ComfyExtension):
    async def on_load(self) -> None:
        logs.guard()
        await register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
