"""The joint forward pass: two towers in lock-step, the bridge between them.

    video latents + condition -> patchify -> [bridge] block 0 .. [bridge] block 29, block 30 .. 39 -> head -> velocity
                                                 |  ^              |  ^
                                                 v  |              v  |
    audio latents ------------> patchify -> [bridge] block 0 .. [bridge] block 29 -----------------> head -> velocity

Time: timesteps are 1000 * sigma, 1000 is noise. The model predicts velocity, noise - clean.
Axes: B batch, T latent frames, H W latent rows and columns, A audio steps, S text rows.

Checked against: OpenMOSS/MOVA 595a976 `pipeline_mova.py` `inference_single_step`, see tests/core/model/test_mova.py.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..config import MovaConfig
from ..errors import ShapeError
from ..ops import PLAIN, Grid, Ops, Runtime, cast
from .bridge import Bridge, Table
from .tower import AudioTower, Prepared, VideoTower


@dataclass(frozen=True)
class Joint:
    """What the layers of one forward read beside the tokens of both towers."""

    video: Prepared
    audio: Prepared
    tables: tuple[Table, Table]  # of the bridge
    grid: Grid  # of the video's tokens
    run: Runtime


class Mova(VideoTower):
    """One video expert with the audio tower and the bridge.

    The video tower's parameters keep Wan's names at the root (`blocks.0.self_attn.q.weight`), so Wan LoRAs and tools
    fit them; the others are under `audio_dit.` and `dual_tower_bridge.`, upstream's folder names.
    """

    def __init__(
        self,
        config: MovaConfig,
        *,
        ops: Ops = cast,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(config.video, ops=ops, device=device, dtype=dtype)
        self.sizes = config
        self.audio_dit = AudioTower(config.audio, ops=ops, device=device, dtype=dtype)
        self.dual_tower_bridge = Bridge(config.bridge, ops=ops, device=device, dtype=dtype)

    def layer_modules(self, run: Runtime = PLAIN) -> list[list[nn.Module]]:
        """The modules each layer uses under `run`; a direction of the bridge that is cut is not among them."""
        bridge, audio = self.dual_tower_bridge, self.audio_dit.blocks
        directions = (
            (run.audio_to_video, bridge.audio_to_video_conditioners),
            (run.video_to_audio, bridge.video_to_audio_conditioners),
        )
        layers: list[list[nn.Module]] = []
        for index, block in enumerate(self.blocks):
            layer = [block, *audio[index : index + 1]]
            layer += [
                conditioners[index] for strength, conditioners in directions if strength and index < len(conditioners)
            ]
            layers.append(layer)
        return layers

    def forward(
        self,
        video_latents: Tensor,
        audio_latents: Tensor,
        context: Tensor,
        video_timestep: Tensor,
        audio_timestep: Tensor,
        *,
        condition: Tensor,
        fps: float,
        audio_context: Tensor | None = None,
        runtime: Runtime = PLAIN,
    ) -> tuple[Tensor, Tensor]:
        """Velocities of both modalities, in the dtype the inputs came in.

        Args:
            video_latents: (B, 16, T, H, W), H and W even.
            audio_latents: (B, audio channels, A), or (n * B, ...): n streams of sound that hear the same video, which
                hears the first of them.
            context: (B, S, text width) prompt embeddings; all rows are attended to.
            video_timestep, audio_timestep: (B,) and (n * B,) float32, 0..1000, one for each sample.
            condition: (B, 20, T, H, W): mask (4, 1 marks a known frame), then image latents (16).
            fps: pictures a second of the clip.
            audio_context: (n * B, S, text width), another prompt for the audio tower; by default both read `context`.
            runtime: how the host wants it run.

        Raises:
            ShapeError: the inputs do not fit each other or the model.
        """
        texts, times = (context, context if audio_context is None else audio_context), (video_timestep, audio_timestep)
        given, video, audio = self.begun(video_latents, audio_latents, texts, times, condition, fps, runtime)
        fetched = runtime.prefetch(self.layer_modules(runtime))
        for index in range(len(self.blocks)):
            next(fetched)
            video, audio = runtime.layer(index, partial(self.joint_layer, index, given), video, audio)
        next(fetched)
        video_velocity = self.unpatchify(self.head(video, given.video.time), given.grid)
        audio_velocity = self.audio_dit.unpatchify(self.audio_dit.head(audio, given.audio.time))
        return video_velocity.to(video_latents.dtype), audio_velocity.to(audio_latents.dtype)

    def begun(
        self,
        video_latents: Tensor,
        audio_latents: Tensor,
        texts: tuple[Tensor, Tensor],
        timesteps: tuple[Tensor, Tensor],
        condition: Tensor,
        fps: float,
        run: Runtime,
    ) -> tuple[Joint, Tensor, Tensor]:
        """What the layers read, and the tokens of both towers before the first. Arguments as `forward`'s, in pairs.

        Raises:
            ShapeError: the inputs do not fit each other or the model.
        """
        self._check(video_latents, audio_latents, *texts, timesteps, condition, fps)
        sound, device, dtype = self.audio_dit, video_latents.device, texts[0].dtype
        video, grid = self.patchify(torch.cat((video_latents, condition.to(video_latents)), dim=1).to(dtype))
        audio = sound.patchify(audio_latents.to(dtype))
        given = Joint(
            self.prepared(timesteps[0], texts[0], self.rope(grid, run, device), grid),
            sound.prepared(timesteps[1], texts[1], sound.rope(audio.shape[1], run, device)),
            self.dual_tower_bridge.tables(grid[0], audio, fps),
            grid,
            run,
        )
        return given, video, audio

    def joint_layer(self, index: int, given: Joint, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Layer `index` of both towers on their tokens, which it overwrites; at any time, in any order."""
        bridge, sound, run = self.dual_tower_bridge, self.audio_dit, given.run
        if index < bridge.config.layers:
            video, audio = bridge(index, video, audio, given.tables, run)
        elif index < sound.config.layers:
            run.keep(index, None)
        video = self.layer(index, video, given.video, run)
        if index < sound.config.layers:
            audio = sound.layer(index, audio, given.audio, run)
        return video, audio

    def _check(
        self,
        video: Tensor,
        audio: Tensor,
        context: Tensor,
        audio_context: Tensor,
        timesteps: tuple[Tensor, Tensor],
        condition: Tensor,
        fps: float,
    ) -> None:
        channels, extra = self.config.out_channels, self.sizes.condition_channels
        sound, text = self.audio_dit.config.in_channels, self.config.text_width
        if video.ndim != 5 or video.shape[1] != channels or video.shape[3] % 2 or video.shape[4] % 2:
            raise ShapeError(
                f"video latents are {tuple(video.shape)}; wanted (batch, {channels}, frames, height, width) "
                f"with even height and width: use pictures whose sides are multiples of 16"
            )
        batch = video.shape[0]
        streams = batch * max(1, audio_context.shape[0] // max(1, batch))
        for name, tensor, wanted in (
            ("audio latents", audio, (streams, sound, None)),
            ("the prompt's context", context, (batch, None, text)),
            ("the sound prompt's context", audio_context, (streams, None, text)),
            ("the video timestep", timesteps[0], (batch,)),
            ("the audio timestep", timesteps[1], (streams,)),
            ("the condition", condition, (batch, extra, *video.shape[2:])),
        ):
            if tensor.ndim != len(wanted) or any(w not in (None, s) for s, w in zip(tensor.shape, wanted)):
                spelled = ", ".join("any" if w is None else str(w) for w in wanted)
                raise ShapeError(f"{name} has shape {tuple(tensor.shape)}; this model and batch want ({spelled})")
        if not fps > 0:
            raise ShapeError(f"a clip cannot have {fps} pictures a second; the model was trained at 24")
