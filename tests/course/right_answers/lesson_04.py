# ruff: noqa: F811
# Right answers to the exercises of notebook 04 that are written otherwise: `# %% ID`.

import math

import numpy as np
import torch


# %% 04-mask
def attention_weights(scores):
    return scores.where(torch.ones_like(scores).tril() > 0, -math.inf).softmax(-1)


# %% 04-mask
def attention_weights(scores):
    shares = scores.double().exp().tril()
    return shares / shares.sum(dim=1, keepdim=True)


# %% 04-mask
def attention_weights(scores):
    weights = torch.zeros_like(scores)
    for i, row in enumerate(scores):
        weights[i, : i + 1] = row[: i + 1].softmax(dim=0)
    return weights


# %% 04-mask
def attention_weights(scores):
    numbers = scores.numpy().astype(np.float64)
    shares = np.tril(np.exp(numbers - numbers.max()))
    return shares / shares.sum(axis=1, keepdims=True)


# %% 04-mask
def attention_weights(scores):
    return (scores + torch.full_like(scores, -torch.inf).triu(1)).softmax(dim=1)


# %% 04-greedy
def write(next_logits, prompt, end, most):
    new = []
    while len(new) < most and (token := int(next_logits([*prompt, *new]).argmax())) != end:
        new.append(token)
    return new


# %% 04-greedy
def write(next_logits, prompt, end, most):
    if most == 0:
        return []
    token = next_logits(prompt).topk(1).indices.item()
    return [] if token == end else [token, *write(next_logits, [*prompt, token], end, most - 1)]


# %% 04-greedy
def write(next_logits, prompt, end, most):
    ids = prompt[:]
    for _ in range(most):
        ids += [int(torch.max(next_logits(ids), dim=0).indices)]
        if ids[-1] == end:
            return ids[len(prompt) : -1]
    return ids[len(prompt) :]


# %% 04-greedy
def write(next_logits, prompt, end, most):
    new = torch.empty(0, dtype=torch.long)
    for _ in range(most):
        scores = next_logits(prompt + new.tolist()).double()
        best = (scores == scores.max()).nonzero()[0]
        if best == end:
            break
        new = torch.cat([new, best])
    return new


# %% 04-greedy
def write(next_logits, prompt, end, most):
    new = []
    for _ in range(most):
        scores = np.asarray(next_logits(list(prompt) + new), dtype=np.float64)
        new.append(int(scores.argmax()))
    return new[: new.index(end)] if end in new else new


# %% 04-beam
answers = ("turn in", 0.3, "turned into", 0.36)


# %% 04-beam
answers = ["Turn in", 0.6 * 0.5, "turned  into", 0.4 * 0.9]


# %% 04-beam
answers = ["turn in", 3 / 10, "turned into", 9 / 25]


# %% 04-beam
answers = ["turn in", torch.tensor(0.3), "turned into", np.float32(0.36)]


# %% 04-beam
answers = ["turn in", math.exp(math.log(0.6) + math.log(0.5)), "turned into", 0.36]


# %% 04-perplexity
def perplexity(log_probabilities):
    return math.exp(-float(log_probabilities.mean()))


# %% 04-perplexity
def perplexity(log_probabilities):
    return 1 / log_probabilities.double().mean().exp()


# %% 04-perplexity
def perplexity(log_probabilities):
    return (1 / log_probabilities.exp()).prod() ** (1 / len(log_probabilities))


# %% 04-perplexity
def perplexity(log_probabilities):
    return np.exp(-np.mean(log_probabilities.numpy()))


# %% 04-perplexity
def perplexity(log_probabilities):
    return torch.exp(-sum(log_probabilities) / len(log_probabilities))
