"""The commands, one file for each thing that people come for; `main.py` joins them."""
