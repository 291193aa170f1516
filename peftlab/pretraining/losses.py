"""What both stages minimise: likeness to the teacher, and telling translations apart.

    L = Σᵢ (1 − cos(sᵢ, tᵢ)) / N  +  w · InfoNCE(s, t),
    InfoNCE = − Σᵢ log( exp(cos(sᵢ, tᵢ)/τ) / Σⱼ exp(cos(sᵢ, tⱼ)/τ) ) / N

s are the student's sentence vectors of texts in any language, t the projected teacher embeddings of
their English sides. The first term is knowledge distillation over languages (Reimers and Gurevych
2020, section 2), the second the ranking of translations (van den Oord et al. 2018, section 2.3).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sentence_loss(
    student: Tensor, target: Tensor, identity: Tensor, temperature: float, contrast: float
) -> tuple[Tensor, Tensor]:
    """Compute L for a batch.

    Args:
        student: s [N, d].
        target: t [N, d].
        identity: [N]; two examples of one English text have equal numbers and are not taken for
            each other's negatives.
        temperature: τ.
        contrast: w.

    Returns:
        L, and the mean cosine cos(sᵢ, tᵢ) for the log.
    """
    if len(student) == 0:  # a batch of paragraphs only
        return student.sum(), torch.tensor(0.0)
    student, target = F.normalize(student.float(), dim=-1), F.normalize(target, dim=-1)
    similarity = student @ target.T
    cosine = similarity.diagonal().mean()
    same = identity[:, None] == identity[None, :]
    same.fill_diagonal_(False)
    logits = (similarity / temperature).masked_fill(same, float("-inf"))
    labels = torch.arange(len(student), device=student.device)
    return 1 - cosine + contrast * F.cross_entropy(logits, labels), cosine.detach()
