"""Block-Recurrent Transformers (Hutchins et al., NeurIPS 2022, arXiv:2203.07852) in JAX and Flax."""
