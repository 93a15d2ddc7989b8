"""MOVA as ComfyUI's model: what its samplers call, and how a layer's weights come to where it computes.

base_model     latents, conditioning and schedules as a BaseModel; settings is its configuration
diffusion      the joint model under ComfyUI's signature; sound_streams guides the sound within one forward
runtime        transformer_options -> mova_core Runtime; sparse is the attention that leaves tiles out
bridge_cache   keys and values by which the audio goes on asking the video
weights        a layer's weights on its device; pass_weights the LoRAs of one pass
memory         how much a run may take, decided before ComfyUI makes room
prism          core's Prism branch in our words
"""
