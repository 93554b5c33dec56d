# ruff: noqa: F811
# Right answers to the exercises of notebook 00, written otherwise than the solutions: `# %% ID`.

import math

import numpy as np
import torch

# %% 00-order
order = ("waveform", "log_mel", "encoder_output", "audio_embeddings", "decoder_input", "token_ids")


# %% 00-lengths
def lengths(samples, rate):
    embeddings = math.ceil(samples / (320 * rate))
    return [2 * rate * embeddings, rate * embeddings, embeddings]


# %% 00-lengths
def lengths(samples, rate):
    size = 320 * rate
    padded = samples + (size - samples % size) % size
    return padded // 160, padded // 320, padded // size


# %% 00-lengths
def lengths(samples, rate):
    embeddings = (samples + 320 * rate - 1) // (320 * rate)
    return torch.tensor([2 * rate, rate, 1]) * embeddings


# %% 00-lengths
def lengths(samples, rate):
    whole, rest = divmod(samples, 320 * rate)
    A = whole + (rest > 0)
    return A * rate * 2, A * rate, A


# %% 00-lengths
def lengths(samples, rate):
    A = 0
    while A * rate * 320 < samples:
        A += 1
    return np.array([2.0 * rate * A, rate * A, A], dtype=np.float32)


# %% 00-trained
def trained_share(module):
    sizes = {True: 0, False: 0}
    for parameter in module.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    return sizes[True] / sum(sizes.values())


# %% 00-trained
def trained_share(module):
    flags = torch.cat([torch.full((p.numel(),), p.requires_grad) for p in module.parameters()])
    return flags.double().mean()


# %% 00-trained
def trained_share(module):
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    return 1 - frozen / sum(p.numel() for p in module.parameters())


# %% 00-trained
def trained_share(module):
    pairs = np.array([(p.numel() * p.requires_grad, p.numel()) for p in module.parameters()])
    trained, total = pairs.sum(axis=0)
    return np.float32(trained / total)


# %% 00-trained
def trained_share(module):
    named = dict(module.named_parameters())
    learn = [name for name, p in named.items() if p.requires_grad]
    return sum(named[name].nelement() for name in learn) / sum(p.nelement() for p in named.values())


# %% 00-graft
def graft(first, second, leave, enter):
    kept = [first[:, n] for n in range(round(leave * 10))]
    kept += [second[:, n] for n in range(round(enter * 10), second.shape[1])]
    return torch.stack(kept, dim=1)


# %% 00-graft
def graft(first, second, leave, enter):
    return torch.cat([first[0, : round(leave * 10)], second[0, round(enter * 10) :]])[None]


# %% 00-graft
def graft(first, second, leave, enter):
    parts = first[:, : int(leave * 10 + 0.5)], second[:, int(enter * 10 + 0.5) :]
    return torch.hstack(parts).double()


# %% 00-graft
def graft(first, second, leave, enter):
    n, m = round(leave * 16_000) // 1600, round(enter * 16_000) // 1600
    out = torch.empty(1, n + second.shape[1] - m, first.shape[2])
    out[:, :n], out[:, n:] = first[:, :n], second[:, m:]
    return out


# %% 00-graft
def graft(first, second, leave, enter):
    before, _ = np.split(first.numpy(), [round(leave * 10)], axis=1)
    _, after = np.split(second.numpy(), [round(enter * 10)], axis=1)
    return np.concatenate([before, after], axis=1)
