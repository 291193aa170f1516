"""What all sites share, and the walks over the sites and parts of a backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from peftlab.encoders import Encoder, Slot
from peftlab.errors import SettingsError
from peftlab.methods.base import Part

#: Attributes of a backbone that hold what :func:`hook` has to take away again.
HOOKS = "_peftlab_hooks"
DETOURS = "_peftlab_detours"


class Site(nn.Module):
    """A module of the backbone with parts around it."""

    original: nn.Module

    def add(self, parts: nn.ModuleDict, label: str, part: Part) -> None:
        """Add a part under a label that is unique at this place.

        Parts are drawn on the CPU, so that a seed gives the same weights everywhere, and take the
        device and type of the weights they meet here.
        """
        if label in parts:
            raise SettingsError(
                f"There is already a part named {label!r} at this place of the encoder; to have "
                "two of one kind, put them into a Stack."
            )
        weight = next(self.original.parameters())
        parts[label] = part.to(weight.device, weight.dtype)


def find(backbone: nn.Module) -> Iterator[tuple[Slot, Site]]:
    """Iterate over all sites of a backbone with the slots they sit in, outermost first."""
    for module in list(backbone.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Site):
                yield Slot(module, name), child


def parts(backbone: nn.Module) -> Iterator[tuple[str, Part]]:
    """Iterate over all parts of a backbone with their module paths; not the parts inside parts."""
    within = "\0"
    for name, module in backbone.named_modules():
        if isinstance(module, Part) and not name.startswith(within):
            within = f"{name}."
            yield name, module


def bare(module: nn.Module) -> Iterator[nn.Parameter]:
    """Iterate over the parameters of a module of the backbone that belong to no part."""
    added = {id(p) for _, part in parts(module) for p in part.parameters()}
    yield from (p for p in module.parameters() if id(p) not in added)


def hook(
    backbone: nn.Module,
    *,
    before: Callable[..., Any] | None = None,
    after: Callable[..., Any] | None = None,
    module: nn.Module | None = None,
    detour: bool = False,
) -> None:
    """Have functions called around every forward pass of a backbone, until :func:`remove`.

    Args:
        backbone: The backbone.
        before: ``(module, args, kwargs)`` → None, or new ``(args, kwargs)``.
        after: ``(module, args, output)`` → None, or a new output.
        module: The module whose pass it is; by default the backbone itself.
        detour: Only training needs them: :func:`flatten` takes them away too.
    """
    module = module or backbone
    made: list[Any] = []
    if before is not None:
        made.append(module.register_forward_pre_hook(before, with_kwargs=True))
    if after is not None:
        made.append(module.register_forward_hook(after))
    for name in (HOOKS, DETOURS) if detour else (HOOKS,):
        backbone.__dict__.setdefault(name, []).extend(made)


def remove(encoder: Encoder) -> None:
    """Put the original modules back, and give the tokens all positions back.

    What the parts had learned is gone.
    """
    encoder.release()
    backbone = encoder.backbone
    for slot, site in find(backbone):
        slot.set(site.original)
    backbone.__dict__.pop(DETOURS, None)
    for handle in backbone.__dict__.pop(HOOKS, []):
        handle.remove()


def flatten(backbone: nn.Module) -> None:
    """Replace every part by the form in which it is stored and served."""
    for path, part in list(parts(backbone)):
        parent, _, name = path.rpartition(".")
        flat = part.flat()
        flat.active = True  # the last step of training may have passed it by
        if flat is not part:
            backbone.get_submodule(parent).register_module(name, flat)
    for handle in backbone.__dict__.pop(DETOURS, []):
        handle.remove()
