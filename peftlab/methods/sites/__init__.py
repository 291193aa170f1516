"""The places of an encoder where a method can add its parts.

A *site* takes the seat of one module of the backbone and calls the original inside. Sites are made
on demand and shared, so that several methods can meet at one place; parts at one place work one
after the other. Sites know no method: a part is any callable module with the signature that the
site names. :func:`remove` restores the bare encoder, :func:`fold` merges the parts into its
weights.
"""

from peftlab.methods.sites.attention import AttentionSite, Padding, attention_site
from peftlab.methods.sites.embeddings import EmbeddingSite, embedding_site, shift_positions
from peftlab.methods.sites.linear import Folded, LinearSite, fold, linear_site
from peftlab.methods.sites.output import OutputSite, output_site
from peftlab.methods.sites.site import Site, bare, find, flatten, hook, parts, remove

__all__ = [
    "AttentionSite",
    "EmbeddingSite",
    "Folded",
    "LinearSite",
    "OutputSite",
    "Padding",
    "Site",
    "attention_site",
    "bare",
    "embedding_site",
    "find",
    "flatten",
    "fold",
    "hook",
    "linear_site",
    "output_site",
    "parts",
    "remove",
    "shift_positions",
]
