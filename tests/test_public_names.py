"""What other programs rely on: the names, their shapes, and that reading stays light."""

import subprocess
import sys

import lkspace


def test_the_names_of_the_front_door() -> None:
    for name in lkspace.__all__:
        assert getattr(lkspace, name) is not None
    assert callable(lkspace.kernels.depthwise_conv2d)
    assert callable(lkspace.kernels.backend_for)


def test_the_calls_as_documented() -> None:
    import torch

    architecture = lkspace.Architecture(
        family="replknet",
        blocks=(1, 2, 1, 1),
        channels=(8, 16, 24, 32),
        kernels=(15, 9, 21, 7),
        reparam=(5, 5, 5, 5),
        shortcut=(True,) * 4,
        dw_ratio=1.5,
        ffn_ratio=4.0,
    )
    assert lkspace.Architecture.from_json(architecture.to_json()) == architecture
    network = lkspace.build(architecture, classes=7).eval()
    image = torch.randn(2, 3, 64, 64)
    before = network(image)
    assert before.shape == (2, 7)
    assert [tuple(f.shape[1:]) for f in network.features(image)] == [(8, 16, 16), (16, 8, 8), (24, 4, 4), (32, 2, 2)]
    assert network.deploy() is network
    torch.testing.assert_close(network(image), before, rtol=1e-4, atol=1e-5)
    assert lkspace.params(architecture, classes=7, form="deploy") == sum(p.numel() for p in network.parameters())
    assert lkspace.flops(architecture, size=64, classes=7, form="deploy") > 0
    assert lkspace.reference("replknet-31b").kernels == (31, 29, 27, 13)


def test_naming_the_package_imports_nothing_heavy() -> None:
    code = (
        "import lkspace, lkspace.cli, sys; print([m for m in ('torch', 'ray', 'optuna', 'pandas') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
