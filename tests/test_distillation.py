from __future__ import annotations

import torch

from tokred.distillation import logit_distillation, unexplained_variance


def test_equal_answers_cost_nothing_and_shifted_logits_are_equal_answers() -> None:
    a = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert abs(float(logit_distillation(a, a + 7))) < 1e-6


def test_every_task_is_a_classification_of_its_own() -> None:
    g = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(2, 6, generator=g) for _ in range(2))
    wanted = 0.0
    for task in (slice(0, 2), slice(2, 6)):
        p, q = teacher[:, task].double().softmax(-1), student[:, task].double().softmax(-1)
        wanted += float((p * (p / q).log()).sum(-1).mean())
    got = float(logit_distillation(student, teacher, (slice(0, 2), slice(2, 6))))
    assert abs(got - wanted) < 1e-6
    assert abs(float(logit_distillation(student, teacher)) - wanted) > 1e-3


def test_the_share_of_variance_that_is_missed_is_zero_for_the_same_and_one_for_the_mean() -> None:
    teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1)) * 7 + 2
    mean = teacher.mean(dim=(0, 1)).expand_as(teacher)
    assert float(unexplained_variance(teacher, teacher)) == 0
    assert abs(float(unexplained_variance(mean, teacher)) - 1) < 1e-5
    halfway = unexplained_variance((mean + teacher) / 2, teacher)
    assert abs(float(halfway) - 0.25) < 1e-5
    assert abs(float(unexplained_variance((mean + teacher) * 50, teacher * 100)) - 0.25) < 1e-5, "whatever the unit"
    assert torch.isfinite(unexplained_variance(teacher, torch.ones_like(teacher)))
