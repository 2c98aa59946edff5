"""The vectors, by theme. Each module holds one tuple, VECTORS; `vectors.py` joins them."""
