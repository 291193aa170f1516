"""How the small multilingual encoder that ships with peftlab is made."""

from peftlab.pretraining.run import pretrain

__all__ = ["pretrain"]
