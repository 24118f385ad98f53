"""Which plugins are installed and what they offer. Nothing here imports torch, ever."""
