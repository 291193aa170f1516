"""Encoders: where one comes from, what it is made of, and shapes of known ones without weights.

Nothing here knows a method, a task or training.
"""

from peftlab.encoders.anatomy import LINEARS, Anatomy, LayerAnatomy, Slot, describe
from peftlab.encoders.encoder import Encoder, Pooling, encoder_from
from peftlab.encoders.loading import language_model_head, load_encoder, resolve
from peftlab.encoders.shapes import PAPERS, SHAPES, shape

__all__ = [
    "LINEARS",
    "PAPERS",
    "SHAPES",
    "Anatomy",
    "Encoder",
    "LayerAnatomy",
    "Pooling",
    "Slot",
    "describe",
    "encoder_from",
    "language_model_head",
    "load_encoder",
    "resolve",
    "shape",
]
