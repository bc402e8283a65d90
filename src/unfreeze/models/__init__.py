"""Pretrained models: which there are, how they are loaded, what their layers are called, how they get a new head.

`catalog` needs no torch and is what the command line may import; `layers`, `loading` and `heads` do.
"""
