"""What is put on a MODEL, and how it reaches both experts.

patcher        an expert's ModelPatcher; every way to the second expert stands there
foreign        what other packs put on a MODEL; namesakes binds it to the other expert's layers
lora_names     the names of LoRA keys, and the expert that each names; self_patching for GGUF's weights
devices        copies of both experts on other cards
"""
