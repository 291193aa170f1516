"""One trained adapter with its head, in an encoder that shares its tensors with others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from peftlab.encoders import Encoder
from peftlab.methods import sites
from peftlab.methods.sites.site import HOOKS
from peftlab.models import INPUTS
from peftlab.serving.switches import extra
from peftlab.tasks import heads

if TYPE_CHECKING:
    from peftlab.methods.base import Method

Batch = Mapping[str, Any]


class Single(nn.Module):
    """One adapter with its head, in a copy of the encoder that shares all the encoder's tensors.

    Attributes:
        method: Its settings.
        reserved: Positions that it takes away from the tokens.
        labels: Of its task, in the order of the logits.
    """

    def __init__(
        self, encoder: Encoder, method: Method, head: heads.Head, labels: Sequence[str]
    ) -> None:
        super().__init__()
        self.backbone: nn.Module = encoder.backbone
        self.path = encoder.anatomy.embeddings.name
        self.method = method
        self.reserved = encoder.reserved
        self.head = head
        self.labels = tuple(labels)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits of a batch, as the model of the checkpoint does."""
        inputs = {key: batch[key] for key in INPUTS if key in batch}
        return cast(Tensor, self.head(self.backbone(**inputs).last_hidden_state, batch))

    @property
    def extra(self) -> int:
        """How many vectors it puts before the tokens."""
        return extra(self.backbone.get_submodule(self.path))

    def places(self) -> list[str]:
        """Return the paths of the modules that are not as in the bare encoder.

        What is inside the embeddings makes them as a whole such a module.
        """
        found = []
        for path, module in self.backbone.named_modules():
            hooks = module._forward_pre_hooks | module._forward_hooks
            if path and (isinstance(module, sites.Site) or self.hooked(hooks)):
                found.append(self.path if inside(path, [self.path]) else path)
        return found

    def hooked(self, hooks: Mapping[int, Any]) -> list[Any]:
        """Return the functions that the method has hooked in, without those of the embeddings.

        What these do around a pass, :class:`Several` does for all adapters at once.
        """
        ids = [handle.id for handle in self.backbone.__dict__.get(HOOKS, [])]
        embeddings = self.backbone.get_submodule(self.path)
        found = [hooks[i] for i in ids if i in hooks]
        return [each for each in found if getattr(each, "__self__", None) is not embeddings]

    def version(self, path: str) -> nn.Module | None:
        """Return its own version of a module of the backbone, None if it has no parts there."""
        there = any(place == path or place.startswith(f"{path}.") for place in self.places())
        return self.backbone.get_submodule(path) if there else None


def inside(path: str, others: Iterable[str]) -> bool:
    """Say whether a path leads into a module of one of the others."""
    return any(path.startswith(f"{other}.") for other in others)
