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


# %% 00-instant | 2.9999999999999996
def embedding_at(seconds):
    return int(seconds / 0.1)


# %% 00-instant | round down
def embedding_at(seconds):
    return round(seconds * 10)


# %% 00-instant | this rounds up
def embedding_at(seconds):
    return -int(-seconds * 16_000 // 1600)


# %% 00-instant | the first one has the number 0
def embedding_at(seconds):
    return round(seconds * 16_000) // 1600 + 1


# %% 00-instant | no whole number yet
def embedding_at(seconds):
    return round(seconds * 16_000) / 1600


# %% 00-instant | number of the sample
def embedding_at(seconds):
    return round(seconds * 16_000)


# %% 00-instant | mel frames
def embedding_at(seconds):
    return round(seconds * 16_000) // 160


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
