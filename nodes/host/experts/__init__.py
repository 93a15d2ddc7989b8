"""Two experts behind one MODEL.

pair           joined, split, changed at the boundary
patcher        an expert's ModelPatcher, and every way in which something reaches the second expert
foreign        what other packs put on a MODEL; namesakes binds it to the other expert's layers
every_run      what every run goes through, with whatever sampler; fitting holds its inputs against the model
devices        copies on other cards; step_caches are ComfyUI's EasyCache and LazyCache
"""
