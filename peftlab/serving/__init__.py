"""Several trained adapters in one encoder."""

from peftlab.serving.shared import Several, several

__all__ = ["Several", "several"]
