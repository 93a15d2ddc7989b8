"""Which part of the pack may import which: the arrows that tests read and the documentation draws."""

LAYERS = (  # a part imports itself and the layers before its own
    {"errors"},
    {"config", "ops", "shapes"},
    {"audio_vae", "collapse", "image", "masks", "model", "retime", "sampling", "speech", "text", "waveform"},
    {"checkpoint", "estimate", "inputs"},
    {"kept", "mp4", "preflight", "prompting", "segments"},
    {"film", "meter", "training"},
)
HOST_LAYERS = (  # the same of nodes/host
    {"listed", "logs", "messages", "newer", "types"},
    {"keys"},
    {"joint_latents", "media"},
    {"meters", "patching"},
    {"model"},
    {"checks"},
    {"kept", "machine"},
    {"experts"},
    {"loaders", "loras"},
    {"sampling"},
    {"films", "training"},
)
