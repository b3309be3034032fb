"""Real models of torchvision, timm and Transformers, cut and compared with what a decoder of its own makes of them.

`decoder` reads from tagged weights what a cut kept; `absent` computes with the rest of the dense model missing;
`check` compares. None of them uses the engine's mask, its trace or its index maps.
"""
