"""What a run trains, as one module: the projector, and the decoder's adapter if it has one."""

from torch import Tensor, nn

from tiny_asr.adapters.lora import adapter_parameters


class Trained(nn.Module):
    """The projector, which it computes, with the adapter's matrices beside it.

    So DDP, which sends around the gradients of the module that it wraps, knows of the adapter too,
    although the decoder computes it.
    """

    def __init__(self, projector: nn.Module, adapter: list[nn.Parameter]):
        super().__init__()
        self.projector = projector
        self.adapter = nn.ParameterList(adapter)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encoder output (B, T, encoder_dim) -> audio embeddings (B, A, llm_dim)."""
        return self.projector(frames, lengths)


def what_is_trained(model, freeze_projector: bool = False) -> nn.Module:
    """The projector of an `ASRModel`; with its adapter, if the decoder has one.

    Raises ValueError if the projector is frozen and there is nothing else to train.
    """
    adapter = adapter_parameters(model.decoder.language_model)
    if freeze_projector and not adapter:
        raise ValueError(
            "freeze_projector came without an adapter; expected something to train: set "
            "adapter_rank too"
        )
    model.audio_projector.requires_grad_(not freeze_projector)
    return Trained(model.audio_projector, adapter) if adapter else model.audio_projector


def parameter_groups(trained: nn.Module, learning_rate: float, adapter_learning_rate: float):
    """The optimiser's groups, each with its `scale` of the run's learning rate."""
    if not isinstance(trained, Trained):
        return [{"params": list(trained.parameters()), "scale": 1.0}]
    projector = [p for p in trained.projector.parameters() if p.requires_grad]
    scale = adapter_learning_rate / learning_rate if learning_rate else 0.0
    groups = [
        {"params": projector, "scale": 1.0},
        {"params": list(trained.adapter), "scale": scale},
    ]
    return [group for group in groups if group["params"]]
