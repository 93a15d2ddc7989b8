"""MOVA as ComfyUI's model: what its samplers call, and how a layer's weights come to where it computes.

base_model     latents, conditioning and schedules as a BaseModel; settings is its configuration
diffusion      the joint model under ComfyUI's signature; sound_streams guides the sound within one forward
runtime        transformer_options -> mova_core Runtime; sparse is the attention that leaves tiles out
weights        a layer's weights on its device; self_patching for GGUF's, pass_weights for LoRAs of one pass
lora_names     the names of LoRA keys, and the expert that each names
prism          core's Prism branch in our words
"""
