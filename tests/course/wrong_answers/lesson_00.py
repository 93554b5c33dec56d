# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 00: `# %% ID | what the check must say`.

import torch

# %% 00-order | expected encoder_output
order = [
    "waveform",
    "log_mel",
    "audio_embeddings",
    "encoder_output",
    "decoder_input",
    "token_ids",
]

# %% 00-order | place 1 holds token_ids; expected waveform
order = [
    "token_ids",
    "decoder_input",
    "audio_embeddings",
    "encoder_output",
    "log_mel",
    "waveform",
]

# %% 00-order | order has 3 of the six stages; missing: audio_embeddings, decoder_input, token_ids
order = ["waveform", "log_mel", "encoder_output"]

# %% 00-order | no stage is called 'log-mel'; expected one of the six names, perhaps 'log_mel'
order = [
    "waveform",
    "log-mel",
    "encoder_output",
    "audio_embeddings",
    "decoder_input",
    "token_ids",
]

# %% 00-order | order holds log_mel 2 times
order = [
    "waveform",
    "log_mel",
    "log_mel",
    "audio_embeddings",
    "decoder_input",
    "token_ids",
]

# %% 00-order | expected a list of the six names
order = "waveform, log_mel, encoder_output, audio_embeddings, decoder_input, token_ids"


# %% 00-lengths | round the embeddings up
def lengths(samples, rate):
    embeddings = samples // (320 * rate)
    return 2 * rate * embeddings, rate * embeddings, embeddings


# %% 00-lengths | the clip is padded first
def lengths(samples, rate):
    F = samples // 160
    T = F // 2
    return F, T, T // rate


# %% 00-lengths | `rate` is not always 5
def lengths(samples, rate):
    embeddings = -(-samples // 1600)
    return 10 * embeddings, 5 * embeddings, embeddings


# %% 00-lengths | F first, then T, then A
def lengths(samples, rate):
    A = -(-samples // (320 * rate))
    return A, rate * A, 2 * rate * A


# %% 00-lengths | one too many where the samples fit exactly
def lengths(samples, rate):
    A = samples // (320 * rate) + 1
    return 2 * rate * A, rate * A, A


# %% 00-lengths | only A is rounded up
def lengths(samples, rate):
    F = -(-samples // 160)
    T = -(-F // 2)
    return F, T, -(-T // rate)


# %% 00-lengths | `/` leaves fractions
def lengths(samples, rate):
    A = samples / (320 * rate)
    return 2 * rate * A, rate * A, A


# %% 00-trained | not tensors
def trained_share(module):
    parameters = list(module.parameters())
    return sum(p.requires_grad for p in parameters) / len(parameters)


# %% 00-trained | divide it by all parameters
def trained_share(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


# %% 00-trained | rows of a matrix
def trained_share(module):
    total = sum(len(p) for p in module.parameters())
    return sum(len(p) for p in module.parameters() if p.requires_grad) / total


# %% 00-trained | upside down
def trained_share(module):
    total = sum(p.numel() for p in module.parameters())
    return total / sum(p.numel() for p in module.parameters() if p.requires_grad)


# %% 00-trained | in per cent
def trained_share(module):
    total = sum(p.numel() for p in module.parameters())
    return 100 * sum(p.numel() for p in module.parameters() if p.requires_grad) / total


# %% 00-trained | divide with `/`
def trained_share(module):
    total = sum(p.numel() for p in module.parameters())
    return sum(p.numel() for p in module.parameters() if p.requires_grad) // total


# %% 00-trained | requires_grad
def trained_share(module):
    total = sum(p.numel() for p in module.parameters())
    return sum(p.numel() for p in module.parameters() if p is not None) / total


# %% 00-graft | your code stopped with RuntimeError
def graft(first, second, leave, enter):
    return torch.cat([first[:, : round(10 * leave)], second[:, round(10 * enter) :]])


# %% 00-graft | not at `leave`
def graft(first, second, leave, enter):
    return torch.cat([first[:, : round(10 * leave)], second[:, round(10 * leave) :]], dim=1)


# %% 00-graft | ten embeddings a second
def graft(first, second, leave, enter):
    return torch.cat([first[:, : int(leave)], second[:, int(enter) :]], dim=1)


# %% 00-graft | `first` comes first
def graft(first, second, leave, enter):
    return torch.cat([second[:, : round(10 * enter)], first[:, round(10 * leave) :]], dim=1)


# %% 00-graft | not up to it
def graft(first, second, leave, enter):
    return torch.cat([first[:, : round(10 * leave)], second[:, : round(10 * enter)]], dim=1)
