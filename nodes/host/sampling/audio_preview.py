"""The sound while it is made: every k steps the clean estimate, decoded, as a file with a link under the node.

ComfyUI's page plays no sound of a node that is still running; what it does show is a text, with links. The link leads to
ComfyUI's own /view, so it needs a browser on the machine that the server listens on; the file lies in the temp folder
in any case.
"""

from comfy.cli_args import args
from comfy.nested_tensor import NestedTensor
from comfy_api.latest import io, ui
from server import PromptServer

from ..loaders.audio_vae import MovaAudioVAE
from ..patching.patcher import MovaPatcher

EVERYWHERE = {"0.0.0.0", "::", ""}  # a server that listens here is reached under the machine's own name


class AudioPreview:
    """A watcher of `sampling.sample`: saves the sound of the batch's first clip after every `every` steps."""

    def __init__(self, model: MovaPatcher, audio_vae: MovaAudioVAE, *, every: int, samples: int) -> None:
        """`samples` is the clip's length; what the codec makes beyond it is cut."""
        self.model, self.audio_vae, self.every, self.samples = model, audio_vae, every, samples
        self.text = ""

    def shown(self) -> str:
        """What stands under the node of it."""
        return self.text

    def __call__(self, step: int, denoised: NestedTensor, steps: int) -> None:
        done = step + 1
        if done % self.every or done == steps:  # after the last step the clip itself is heard
            return
        audio = self.model.model.process_latent_out(denoised).unbind()[1][:1]
        waveform = self.audio_vae.decode(audio).movedim(-1, 1)[..., : self.samples].cpu()
        sound = {"waveform": waveform, "sample_rate": self.audio_vae.audio_sample_rate}
        saved = ui.AudioSaveHelper.save_audio(sound, f"mova_step_{done:03}", io.FolderType.temp, None)[0]
        link = f"[[listen|{address()}/view?type=temp&filename={saved['filename']}&subfolder={saved['subfolder']}]]"
        self.text = f"Sound after step {done} of {steps}: {link}"


def address() -> str:
    """Where a browser on this machine finds the server."""
    server = getattr(PromptServer, "instance", None)
    host = getattr(server, "address", "127.0.0.1")
    host = "127.0.0.1" if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    scheme = "https" if args.tls_keyfile and args.tls_certfile else "http"
    return f"{scheme}://{host}:{getattr(server, 'port', args.port)}"
