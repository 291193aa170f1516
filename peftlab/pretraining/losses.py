"""What is minimised: likeness to the teacher's sentences and words, and telling translations apart.

    L_sentence = Σᵢ (1 − cos(sᵢ, tᵢ)) / N  +  w · InfoNCE(s, t),
    InfoNCE = − Σᵢ log( exp(cos(sᵢ, tᵢ)/τ) / Σⱼ exp(cos(sᵢ, tⱼ)/τ) ) / N

s are the student's sentence vectors of texts in any language, t the teacher's of their English
sides. The first term is knowledge distillation over languages (Reimers and Gurevych 2020, section
2), the second the ranking of translations (van den Oord et al. 2018, section 2.3). Words are taught
as sentences are, without the ranking.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sentence_losses(
    student: Tensor, target: Tensor, identity: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute both terms for a batch.

    Args:
        student: s [N, d].
        target: t [N, d].
        identity: [N]; two examples of one English text have equal numbers and are not taken for
            each other's negatives.
        temperature: τ.

    Returns:
        The distance to the teacher, InfoNCE, and the mean cosine cos(sᵢ, tᵢ) for the log.
    """
    if len(student) == 0:  # a batch of paragraphs only
        return student.sum(), student.sum(), torch.tensor(0.0)
    student, target = F.normalize(student.float(), dim=-1), F.normalize(target, dim=-1)
    similarity = student @ target.T
    cosine = similarity.diagonal().mean()
    same = identity[:, None] == identity[None, :]
    same.fill_diagonal_(False)
    logits = (similarity / temperature).masked_fill(same, float("-inf"))
    labels = torch.arange(len(student), device=student.device)
    return 1 - cosine, F.cross_entropy(logits, labels), cosine.detach()


def word_loss(student: Tensor, target: Tensor) -> Tensor:
    """Compute Σ_w (1 − cos(h_w, t_w)) / W for words, student's and teacher's, each [W, d]."""
    if len(student) == 0:
        return student.sum()
    return 1 - F.cosine_similarity(student.float(), target, dim=-1).mean()
