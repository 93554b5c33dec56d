# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 05: `# %% ID | what the check must say`.

import math

import torch
import torch.nn.functional as F


# %% 05-mask | padding with 0 makes token 0 a target
def make_labels(texts, end):
    rows = [torch.tensor([*text, end]) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


# %% 05-mask | would never learn to stop
def make_labels(texts, end):
    longest = max(len(text) for text in texts)
    return torch.tensor([text + [-100] * (longest - len(text)) for text in texts])


# %% 05-mask | every padded place a target
def make_labels(texts, end):
    longest = max(len(text) for text in texts) + 1
    return torch.tensor([text + [end] * (longest - len(text)) for text in texts])


# %% 05-mask | comes right after the text
def make_labels(texts, end):
    longest = max(len(text) for text in texts)
    return torch.tensor([text + [-100] * (longest - len(text)) + [end] for text in texts])


# %% 05-entropy | labels of -100 must be left out
def cross_entropy(logits, labels):
    chances = logits.log_softmax(dim=-1)
    return -chances.gather(1, labels.clamp(min=0)[:, None]).mean()


# %% 05-entropy | not by all of them
def cross_entropy(logits, labels):
    counted = labels != -100
    chances = logits[counted].log_softmax(dim=-1)
    return -chances.gather(1, labels[counted][:, None]).sum() / len(labels)


# %% 05-entropy | subtract the row's largest score first
def cross_entropy(logits, labels):
    counted = labels != -100
    logits, labels = logits[counted], labels[counted]
    chances = logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
    return -chances.gather(1, labels[:, None]).log().mean()


# %% 05-entropy | the sign
def cross_entropy(logits, labels):
    counted = labels != -100
    chances = logits[counted].log_softmax(dim=-1)
    return chances.gather(1, labels[counted][:, None]).mean()


# %% 05-entropy | leaves the work to F.cross_entropy
def cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels)


# %% 05-entropy | leaves the work to F.cross_entropy
def cross_entropy(logits, labels):
    return torch.nn.CrossEntropyLoss()(logits, labels)


# %% 05-warmup | the rise is missing
def rate(heard, highest, warmup, total):
    return highest * 0.5 * (1 + math.cos(math.pi * heard / total))


# %% 05-warmup | count from `warmup`
def rate(heard, highest, warmup, total):
    if heard < warmup:
        return highest * (heard + 1) / (warmup + 1)
    return highest * 0.5 * (1 + math.cos(math.pi * heard / total))


# %% 05-warmup | not a straight line
def rate(heard, highest, warmup, total):
    if heard < warmup:
        return highest * (heard + 1) / (warmup + 1)
    return highest * max(0, 1 - (heard - warmup) / (total - warmup))


# %% 05-warmup | stays at 0
def rate(heard, highest, warmup, total):
    if heard < warmup:
        return highest * (heard + 1) / (warmup + 1)
    done = (heard - warmup) / (total - warmup)
    return highest * 0.5 * (1 + math.cos(math.pi * done))


# %% 05-clip | one norm over all tensors together
def clip_gradients(gradients, most):
    return [g * min(1, most / max(float(g.norm()), 1e-9)) for g in gradients]


# %% 05-clip | shrink by one factor
def clip_gradients(gradients, most):
    return [g.clamp(-most, most) for g in gradients]


# %% 05-clip | what is short enough stays as it is
def clip_gradients(gradients, most):
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    return [g * most / norm for g in gradients]


# %% 05-overfit | throws the gradients away (first bug)
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(module(inputs), targets)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %% 05-overfit | give it the raw scores (second bug)
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(inputs).softmax(dim=-1), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %% 05-overfit | add up
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(module(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %% 05-clip | expected a list of 2 tensors
def clip_gradients(gradients, most):
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    return gradients[0] * min(1, most / norm)


# %% 05-mask | append `end` first
def make_labels(texts, end):
    longest = max(len(text) for text in texts)
    rows = [[*text, end] for text in texts]
    return torch.tensor([row + [-100] * (longest - len(row)) for row in rows])


# %% 05-mask | the first token is a label, too
def make_labels(texts, end):
    rows = [[*text[1:], end] for text in texts]
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [-100] * (longest - len(row)) for row in rows])


# %% 05-mask | behind the text, not before it
def make_labels(texts, end):
    rows = [[*text, end] for text in texts]
    longest = max(len(row) for row in rows)
    return torch.tensor([[-100] * (longest - len(row)) + row for row in rows])


# %% 05-mask | needs batch_first=True
def make_labels(texts, end):
    rows = [torch.tensor([*text, end]) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, padding_value=-100)


# %% 05-mask | the rows are not padded
def make_labels(texts, end):
    return [torch.tensor([*text, end]) for text in texts]


# %% 05-overfit | `step` is missing, or it stands before `backward`
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(module(inputs), targets)
        optimizer.zero_grad()
        optimizer.step()
        loss.backward()
        losses.append(loss.item())
    return losses


# %% 05-overfit | `step` is missing
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(module(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
    return losses


# %% 05-overfit | uses the gradients of the step before
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(module(inputs), targets)
        optimizer.step()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
    return losses


# %% 05-overfit | `backward` is missing
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(module(inputs), targets)
        optimizer.zero_grad()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %% 05-overfit | and the softmax is done twice (second bug)
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(steps):
        scores = module(inputs).softmax(dim=-1)
        loss = F.cross_entropy(scores, targets)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %% 05-overfit | leave out the softmax
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(steps):
        loss = F.nll_loss(module(inputs).softmax(dim=-1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %% 05-overfit | return the list of all
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(steps):
        loss = F.cross_entropy(module(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


# %% 05-overfit | `return` stands in the loop
def overfit(module, inputs, targets, steps):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(module(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        return losses
