"""How much there is to compute and to read, counted from the sizes of the models.

A matrix of N weights costs 2 N floating-point operations (FLOPs) for each position that it is
applied to. Backward through a frozen matrix costs as much again (the gradient of its input), and
through a trained one twice as much. Attention of the encoder is counted, as its T are many; that of
a large decoder is about a hundredth of its matrices and is not, nor are norms and activations.
"""

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from tiny_asr.config import ASRConfig
from tiny_asr.encoder import EncoderOfCheckpoint
from tiny_asr.fast.ready_caches import numbers_per_position
from tiny_asr.projectors.registry import projector_class
from tiny_asr.shapes import ENCODER_FRAMES_PER_SECOND


def empty_parts(config: ASRConfig) -> dict[str, nn.Module]:
    """The three models on torch's meta device, where tensors have shapes and hold no numbers."""
    text = config.decoder_config
    with torch.device("meta"):
        return {
            "encoder": EncoderOfCheckpoint(config.encoder_config),
            # In bfloat16: mixtures of experts run in no other number format there.
            "decoder": AutoModelForCausalLM.from_config(text, dtype=torch.bfloat16),
            "projector": projector_class(config.projector_type)(config),
        }


def sizes(config: ASRConfig) -> dict[str, int]:
    """Numbers of weights of a pair, from its configs alone: no model is loaded.

    Returns:
        encoder, projector, decoder: all weights of each. encoder layers, conv1, conv2, decoder
        layers, head, projector layers: those of the matrices that each frame or position is
        multiplied with. cached: the numbers of a position's keys and values.
    """
    parts = empty_parts(config)
    encoder, decoder = parts["encoder"], parts["decoder"]

    def layers(model: nn.Module) -> int:
        return sum(w.numel() for n, w in model.named_parameters() if "layers." in n and w.ndim == 2)

    whole = {name: sum(w.numel() for w in part.parameters()) for name, part in parts.items()}
    return whole | {
        "encoder layers": layers(encoder),
        "conv1": encoder.conv1.weight.numel(),
        "conv2": encoder.conv2.weight.numel(),
        "projector layers": sum(w.numel() for w in parts["projector"].parameters() if w.ndim > 1),
        "decoder layers": layers(decoder),
        "head": decoder.get_output_embeddings().weight.numel(),
        "cached": numbers_per_position(decoder),
    }


def training_bytes(config: ASRConfig, all_trained: bool = False) -> float:
    """What stays in memory through a training: weights, gradients, AdamW; activations come on top.

    Frozen weights take 2 bytes each. A trained one takes 16: itself, its gradient, two moments.
    """
    n = sizes(config)
    frozen = n["encoder"] + n["decoder"]
    return 16 * (n["projector"] + frozen * all_trained) + 2 * frozen * (not all_trained)


class Work:
    """The FLOPs and bytes of each stage, for one clip.

    Args:
        config: of the pair.
        prompt: P, its tokens.
        width: bytes of a weight.
    """

    def __init__(self, config: ASRConfig, prompt: int, width: int = 2):
        self.sizes, self.prompt, self.width = sizes(config), prompt, width
        self.encoder, self.rate = config.encoder_config, config.audio_downsample_rate
        self.position_bytes = self.sizes["cached"] * width

    def audio(self, seconds: float) -> float:
        """A, the audio embeddings of so many seconds."""
        return ENCODER_FRAMES_PER_SECOND * seconds / self.rate

    def positions(self, seconds: float, tokens: int = 0) -> float:
        """Positions of the decoder: prompt, audio embeddings and text."""
        return self.prompt + self.audio(seconds) + tokens

    def encode(self, seconds: float) -> float:
        """FLOPs of the encoder. The first convolution has two positions for each frame."""
        frames = ENCODER_FRAMES_PER_SECOND * seconds
        convolutions = 2 * (2 * frames * self.sizes["conv1"] + frames * self.sizes["conv2"])
        attention = 4 * frames**2 * self.encoder.d_model * self.encoder.encoder_layers
        return convolutions + 2 * self.sizes["encoder layers"] * frames + attention

    def train_projector(self, seconds: float) -> float:
        """FLOPs of the projector, there and back."""
        return 6 * self.sizes["projector layers"] * self.audio(seconds)

    def train_decoder(self, seconds: float, tokens: int) -> float:
        """FLOPs of the decoder, there and back; tokens of text include the end."""
        layers, head = self.sizes["decoder layers"], self.sizes["head"]
        return 4 * layers * self.positions(seconds, tokens) + 4 * head * tokens

    def read_prompt(self, seconds: float) -> float:
        """FLOPs of reading prompt and audio, and of the first token's logits."""
        return 2 * self.sizes["decoder layers"] * self.positions(seconds) + 2 * self.sizes["head"]

    def write(self, batch: int, positions: float) -> tuple[float, float]:
        """FLOPs and bytes of one more token for each of a batch: all weights are read once, and
        each row's keys and values."""
        weights = self.sizes["decoder layers"] + self.sizes["head"]
        return 2 * weights * batch, weights * self.width + batch * positions * self.position_bytes
