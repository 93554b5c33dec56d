# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 04: `# %% ID | what the check must say`.

import torch


# %% 04-mask | nothing is hidden
def attention_weights(scores):
    return scores.softmax(dim=1)


# %% 04-mask | hide before the softmax
def attention_weights(scores):
    return scores.softmax(dim=1).tril()


# %% 04-mask | a score of 0 is no weight of 0
def attention_weights(scores):
    return scores.tril().softmax(dim=1)


# %% 04-mask | the wrong half is hidden
def attention_weights(scores):
    past = torch.ones_like(scores).tril(-1).bool()
    return scores.masked_fill(past, -torch.inf).softmax(dim=1)


# %% 04-mask | a position may look at itself
def attention_weights(scores):
    future = torch.ones_like(scores).triu().bool()
    return scores.masked_fill(future, -torch.inf).softmax(dim=1)


# %% 04-mask | along each row
def attention_weights(scores):
    future = torch.ones_like(scores).triu(1).bool()
    return scores.masked_fill(future, -torch.inf).softmax(dim=0)


# %% 04-greedy | the end token is no part of the text
def write(next_logits, prompt, end, most):
    ids = list(prompt)
    while len(ids) < len(prompt) + most:
        ids.append(int(next_logits(ids).argmax()))
        if ids[-1] == end:
            break
    return ids[len(prompt) :]


# %% 04-greedy | without the prompt
def write(next_logits, prompt, end, most):
    ids = list(prompt)
    for _ in range(most):
        token = int(next_logits(ids).argmax())
        if token == end:
            break
        ids.append(token)
    return ids


# %% 04-greedy | put behind the ids before the next one is asked for
def write(next_logits, prompt, end, most):
    new = []
    while len(new) < most:
        token = int(next_logits(prompt).argmax())
        if token == end:
            break
        new.append(token)
    return new


# %% 04-greedy | the loop never ends
def write(next_logits, prompt, end, most):
    ids = list(prompt)
    while True:
        token = int(next_logits(prompt).argmax())
        if token == end:
            return ids[len(prompt) :]
        ids.append(token)


# %% 04-greedy | at most `most` tokens, not one more
def write(next_logits, prompt, end, most):
    new = []
    while len(new) <= most:
        token = int(next_logits(prompt + new).argmax())
        if token == end:
            break
        new.append(token)
    return new


# %% 04-greedy | work on a copy of it
def write(next_logits, prompt, end, most):
    ids = prompt
    for _ in range(most):
        token = int(next_logits(ids).argmax())
        if token == end:
            break
        ids.append(token)
    return ids[len(prompt) :]


# %% 04-greedy | and is [9, 4, 5, 3, 3, 7] after your function
def write(next_logits, prompt, end, most):
    start = len(prompt)
    for _ in range(most):
        token = int(next_logits(prompt).argmax())
        if token == end:
            break
        prompt.append(token)
    return prompt[start:]


# %% 04-greedy | nothing stops it but the end token
def write(next_logits, prompt, end, most):
    ids = list(prompt)
    while (token := int(next_logits(ids).argmax())) != end:
        ids.append(token)
    return ids[len(prompt) :]


# %% 04-greedy | asked for the next token 21 times; expected 3
def write(next_logits, prompt, end, most):
    ids = list(prompt)
    while (token := int(next_logits(ids).argmax())) != end:
        ids.append(token)
    return ids[len(prompt) :][:most]


# %% 04-perplexity | the minus sign is missing
def perplexity(log_probabilities):
    return log_probabilities.mean().exp()


# %% 04-perplexity | take the mean, not the sum
def perplexity(log_probabilities):
    return (-log_probabilities.sum()).exp()


# %% 04-perplexity | not the other way round
def perplexity(log_probabilities):
    return (-log_probabilities).exp().mean()


# %% 04-perplexity | take exp, not a power of 2
def perplexity(log_probabilities):
    return 2 ** (-log_probabilities.mean())


# %% 04-perplexity | its exponential is asked for
def perplexity(log_probabilities):
    return -log_probabilities.mean()


# %% 04-greedy | at most `most` tokens, not one more
def write(next_logits, prompt, end, most):
    new = []  # of tensors
    while len(new) <= most and (token := next_logits(prompt + new).argmax()) != end:
        new.append(token)
    return new


# %% 04-beam | never goes back
answers = ["turned into", 0.36, "turned into", 0.36]


# %% 04-beam | multiply the two probabilities
answers = ["turn in", 1.1, "turned into", 1.3]


# %% 04-beam | keeps both first tokens
answers = ["turn in", 0.3, "turn in", 0.3]


# %% 04-beam | not of the last alone
answers = ["turn in", 0.5, "turned into", 0.9]


# %% 04-beam | without a per cent sign
answers = ["turn in", "30 %", "turned into", "36 %"]
