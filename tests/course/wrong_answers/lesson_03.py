# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 03: `# %% ID | what the check must say`.

import torch


# %% 03-stack | only one frame of each group is left
def stack_by_hand(frames, rate):
    return frames[::rate]


# %% 03-stack | averaged
def stack_by_hand(frames, rate):
    return frames.reshape(-1, rate, frames.shape[1]).mean(dim=1)


# %% 03-stack | frames from far apart are together
def stack_by_hand(frames, rate):
    return torch.cat(frames.chunk(rate), dim=1)


# %% 03-stack | frame after frame; not number after number
def stack_by_hand(frames, rate):
    groups = frames.reshape(-1, rate, frames.shape[1])
    return groups.transpose(1, 2).flatten(1)


# %% 03-stack | a row must be flat
def stack_by_hand(frames, rate):
    return frames.reshape(-1, rate, frames.shape[1])


# %% 03-count | each layer has a bias too
def count_parameters(rate, encoder_dim, hidden, llm_dim):
    return rate * encoder_dim * hidden + hidden * llm_dim


# %% 03-count | the norm at the end has llm_dim numbers
def count_parameters(rate, encoder_dim, hidden, llm_dim):
    return (rate * encoder_dim + 1) * hidden + (hidden + 1) * llm_dim


# %% 03-count | the first layer reads a whole stack
def count_parameters(rate, encoder_dim, hidden, llm_dim):
    return (encoder_dim + 1) * hidden + (hidden + 1) * llm_dim + llm_dim


# %% 03-count | one number for each output of a layer, not for each input
def count_parameters(rate, encoder_dim, hidden, llm_dim):
    wide = rate * encoder_dim
    return wide * hidden + wide + hidden * llm_dim + hidden + llm_dim


# %% 03-rms | the root of the SUM of squares
def as_loud_as(vectors, tokens):
    own = vectors.norm(dim=1, keepdim=True)
    return vectors / own * tokens.square().mean().sqrt()


# %% 03-rms | divided by its own loudness
def as_loud_as(vectors, tokens):
    return vectors / vectors.square().mean().sqrt() * tokens.square().mean().sqrt()


# %% 03-rms | make it that of the tokens
def as_loud_as(vectors, tokens):
    return vectors / vectors.square().mean(dim=1, keepdim=True).sqrt()


# %% 03-rms | the square root is missing
def as_loud_as(vectors, tokens):
    own = vectors.square().mean(dim=1, keepdim=True)
    return vectors / own * tokens.square().mean().sqrt()


# %% 03-rms | RMS, not standard deviation
def as_loud_as(vectors, tokens):
    centred = vectors - vectors.mean(dim=1, keepdim=True)
    own = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / own * tokens.square().mean().sqrt()


# %% 03-rms | columns were divided, not rows
def as_loud_as(vectors, tokens):
    return vectors / vectors.square().mean(dim=1).sqrt() * tokens.square().mean().sqrt()


# %% 03-rms | one mean over all numbers
def as_loud_as(vectors, tokens):
    own = vectors.square().mean(dim=1, keepdim=True).sqrt()
    return vectors / own * tokens.square().mean(dim=1).sqrt().mean()


# %% 03-stack | rate is how many frames lie in a row
def stack_by_hand(frames, rate):
    return frames.reshape(rate, -1)


# %% 03-nearest | the plain product favours loud tokens
def nearest_tokens(vectors, table):
    return (vectors @ table.T).argmax(dim=1)


# %% 03-nearest | the distance favours quiet tokens
def nearest_tokens(vectors, table):
    return torch.cdist(vectors, table).argmin(dim=1)


# %% 03-nearest | take the largest, not the smallest
def nearest_tokens(vectors, table):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    table = table / table.norm(dim=1, keepdim=True)
    return (vectors @ table.T).argmin(dim=1)


# %% 03-nearest | the number of the token
def nearest_tokens(vectors, table):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    table = table / table.norm(dim=1, keepdim=True)
    return (vectors @ table.T).max(dim=1).values


# %% 03-nearest | the plain product favours loud tokens
def nearest_tokens(vectors, table):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return (vectors @ table.T).argmax(dim=1)


# %% 03-cost | 2 for each parameter
def decoder_flops(seconds, rate, other, parameters):
    return parameters * (-(-50 * seconds // rate) + other)


# %% 03-cost | add `other`
def decoder_flops(seconds, rate, other, parameters):
    return 2 * parameters * -(-50 * seconds // rate)


# %% 03-cost | the last frames need an embedding too
def decoder_flops(seconds, rate, other, parameters):
    return 2 * parameters * (50 * seconds // rate + other)


# %% 03-cost | embeddings are whole: round up
def decoder_flops(seconds, rate, other, parameters):
    return 2 * parameters * (50 * seconds / rate + other)


# %% 03-cost | divide
def decoder_flops(seconds, rate, other, parameters):
    return 2 * parameters * (50 * seconds * rate + other)


# %% 03-rms | one number, mean() without dim, and not one for each token
def as_loud_as(vectors, tokens):
    own = vectors.square().mean(dim=1, keepdim=True).sqrt()
    return vectors / own * tokens.square().mean(dim=1, keepdim=True).sqrt()


# %% 03-rms | and not one for each row of the table
def as_loud_as(vectors, tokens):
    own = vectors.square().mean(dim=1, keepdim=True).sqrt()
    return vectors / own * tokens.square().mean(dim=1).sqrt()


# %% 03-rms | and not one for each column
def as_loud_as(vectors, tokens):
    own = vectors.square().mean(dim=1, keepdim=True).sqrt()
    return vectors / own * tokens.square().mean(dim=0).sqrt()


# %% 03-nearest | return its `.indices`
def nearest_tokens(vectors, table):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    table = table / table.norm(dim=1, keepdim=True)
    return (vectors @ table.T).max(dim=1)


# %% 03-nearest | these are products, the values of `max`
def nearest_tokens(vectors, table):
    return (vectors @ table.T).max(dim=1).values


# %% 03-nearest | without dim=1
def nearest_tokens(vectors, table):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    table = table / table.norm(dim=1, keepdim=True)
    return (vectors @ table.T).argmax()
