"""A run, from the outside in.

mova_sampler   the settings of 'MOVA Sampler' -> a run; fast the recipe of few steps
long_runs      a run kept on its way and gone on with; long_run_ways are the three of going on
guiders        guidance and bridge strength
samplers       schedules and ComfyUI's samplers; av_euler where the streams have two noise levels
collapse_guard, audio_preview  watch a run
"""
