"""The network: shapes, the layout of its weights, gradients."""

from __future__ import annotations

import pytest
import torch

from sda_daemon.demo.losses import kl_divergence, vae_loss
from sda_daemon.models import ConvVAE
from sda_daemon.models.vae import WeightsLayout, build_model, expected_shapes, weights_layout


@pytest.mark.parametrize("layout", [WeightsLayout(64, 8, 6, True), WeightsLayout(3, 1, 2, False)])
def test_expected_shapes_are_those_of_the_model(layout: WeightsLayout) -> None:
    """Name by name, and the other way round the layout follows from them."""
    shapes = {name: tuple(tensor.shape) for name, tensor in build_model(layout, "sigmoid").state_dict().items()}
    assert expected_shapes(layout) == shapes
    assert weights_layout(shapes, n_mels=layout.rows * 16) == layout


def test_the_weights_are_named_as_in_training() -> None:
    """Convolutions at 0, 4, 8, 12, norms beside them, linear layers of the format's sizes."""
    shapes = expected_shapes(WeightsLayout(64, 8, 6, True))
    assert shapes["encoder.fc_mu.weight"] == (64, 12_288)
    assert shapes["decoder.fc.weight"] == (12_288, 64)
    assert shapes["encoder.convs.12.weight"] == (256, 128, 3, 3)
    assert shapes["encoder.convs.13.running_var"] == (256,)
    assert shapes["decoder.deconvs.12.weight"] == (32, 1, 3, 3)
    assert "decoder.deconvs.13.weight" not in shapes


def test_linear_layers_are_made_by_the_first_pass() -> None:
    """None before; the output has the input's shape, whatever it is."""
    model = ConvVAE(latent_dim=5)
    assert model.latent_dim == 5
    assert (model.encoder.fc_mu, model.encoder.fc_logvar, model.decoder.fc) == (None, None, None)
    output, mu, logvar = model(torch.rand(2, 1, 100, 37))
    assert (output.shape, mu.shape, logvar.shape) == ((2, 1, 100, 37), (2, 5), (2, 5))
    assert output.min() >= 0
    with pytest.raises(ValueError, match="chunks as long as in training"):
        model.encode(torch.rand(1, 1, 100, 80))


def test_samples_have_the_default_shape() -> None:
    """128 by 94, from a model that has never seen anything."""
    assert ConvVAE().sample(3).shape == (3, 1, 128, 94)
    with pytest.raises(ValueError, match="at least 1"):
        ConvVAE().sample(0)
    with pytest.raises(ValueError, match="latent_dim"):
        ConvVAE(latent_dim=0)


def test_it_learns() -> None:
    """Every weight has a gradient, and a few steps make the loss smaller."""
    torch.manual_seed(0)
    model, mels = ConvVAE(latent_dim=4, dropout=0.0), torch.rand(8, 1, 32, 32)
    model(mels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(15):
        output, mu, logvar = model(mels)
        loss, _, _ = vae_loss(output, mels, mu, logvar, kl_weight=0.001)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_divergence_is_the_textbooks() -> None:
    """0 for the unit normal distribution, as torch computes it otherwise, with a floor per dimension."""
    mu, logvar = torch.randn(6, 3), torch.randn(6, 3)
    assert kl_divergence(torch.zeros(6, 3), torch.zeros(6, 3)) == 0
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, (0.5 * logvar).exp()), torch.distributions.Normal(0, 1)
    )
    assert torch.allclose(kl_divergence(mu, logvar), theirs.sum(1).mean())
    assert kl_divergence(torch.zeros(6, 3), torch.zeros(6, 3), free_bits=0.5) == 1.5
