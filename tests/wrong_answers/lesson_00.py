# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 00: `# %% ID | what the check must say`.

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

# %% 00-order | order gave
order = ["waveform", "log_mel", "encoder_output"]


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


# %% 00-instant | 2.9999999999999996
def embedding_at(seconds):
    return int(seconds / 0.1)


# %% 00-instant | round down
def embedding_at(seconds):
    return round(seconds * 10)


# %% 00-instant | encoder frames
def embedding_at(seconds):
    return int(seconds * 50)


# %% 00-trained | not tensors
def trained_share(module):
    parameters = list(module.parameters())
    return sum(p.requires_grad for p in parameters) / len(parameters)


# %% 00-trained | divide it by all parameters
def trained_share(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


# %% 00-trained | requires_grad
def trained_share(module):
    total = sum(p.numel() for p in module.parameters())
    return sum(p.numel() for p in module.parameters() if p is not None) / total
