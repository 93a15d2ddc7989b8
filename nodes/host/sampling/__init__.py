"""A run, from the outside in.

mova_sampler   the settings of 'MOVA Sampler' -> a run; fast the recipe of few steps
guiders        guidance and bridge strength
samplers       schedules and ComfyUI's samplers; av_euler where the streams have two noise levels
joint_latents  a LATENT of two streams
bridge_cache   keys and values by which the audio goes on asking the video
collapse_guard, audio_preview  watch a run
"""
