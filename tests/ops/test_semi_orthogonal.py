"""Povey et al. 2018, §2: the update's properties, and that it converges."""

import pytest
import torch

from greenasr.ops.semi_orthogonal import deviation, semi_orthogonal_step


def random_matrix(rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(80, 640), (5, 7), (8, 8), (640, 80), (1, 9)])
def test_it_converges_to_equal_singular_values(shape: tuple[int, int]) -> None:
    matrix = 3 * random_matrix(*shape)
    for _ in range(200):
        matrix = semi_orthogonal_step(matrix)
    values = torch.linalg.svdvals(matrix)
    torch.testing.assert_close(values, values.mean().expand_as(values), rtol=1e-6, atol=0)
    assert deviation(matrix) < 1e-6


def test_near_the_goal_the_error_is_squared_by_every_step() -> None:
    matrix = torch.linalg.qr(random_matrix(40, 10)).Q.T + 0.01 * random_matrix(10, 40, 1)
    errors = []
    for _ in range(3):
        errors.append(deviation(matrix))
        matrix = semi_orthogonal_step(matrix)
    assert errors[1] < 3 * errors[0] ** 2 and errors[2] < 3 * errors[1] ** 2


def test_the_step_is_orthogonal_to_the_matrix_so_that_its_scale_is_left_to_training() -> None:
    matrix = random_matrix(6, 20)
    step = semi_orthogonal_step(matrix) - matrix
    assert abs(float((step * matrix).sum())) < 1e-10 * float(step.norm() * matrix.norm())


def test_scaling_and_turning_the_matrix_scales_and_turns_the_step() -> None:
    matrix, turn = random_matrix(6, 20), torch.linalg.qr(random_matrix(20, 20, 1)).Q
    torch.testing.assert_close(
        semi_orthogonal_step(5 * matrix @ turn), 5 * semi_orthogonal_step(matrix) @ turn
    )


def test_a_semi_orthogonal_matrix_stays_as_it_is() -> None:
    matrix = 2 * torch.linalg.qr(random_matrix(20, 6)).Q.T
    torch.testing.assert_close(semi_orthogonal_step(matrix), matrix)
    assert deviation(matrix) < 1e-12
