"""The architecture: the language model, its state, its loss and its FLOPs."""
