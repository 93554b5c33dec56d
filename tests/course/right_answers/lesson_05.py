# ruff: noqa: F811
# Right answers to the exercises of notebook 05 that are written otherwise: `# %% ID`.

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_


# %% 05-entropy
def cross_entropy(logits, labels):
    logits, labels = logits[labels != -100], labels[labels != -100]
    log_p = logits - logits.logsumexp(dim=-1, keepdim=True)
    return -log_p.gather(1, labels[:, None]).mean()


# %% 05-entropy
def cross_entropy(logits, labels):
    counted = labels != -100
    return -logits[counted].log_softmax(-1)[range(int(counted.sum())), labels[counted]].mean()


# %% 05-entropy
def cross_entropy(logits, labels):
    losses = []
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        if label != -100:
            losses.append(row.logsumexp(0) - row[label])
    return sum(losses) / len(losses)


# %% 05-entropy
def cross_entropy(logits, labels):
    p = torch.softmax(logits[labels != -100], dim=1)
    return -torch.log(p[torch.arange(len(p)), labels[labels != -100]]).mean()


# %% 05-entropy
def cross_entropy(logits, labels):
    rows = logits - logits.max(dim=1, keepdim=True)[0]
    log_p = rows - rows.exp().sum(1, keepdim=True).log()
    picked = log_p.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    return -(picked * (labels != -100)).sum() / (labels != -100).sum()


# %% 05-entropy
def cross_entropy(logits, labels):
    one_hot = F.one_hot(labels[labels != -100], logits.shape[1])
    log_p = F.log_softmax(logits[labels != -100].double(), dim=1)
    return float(-(one_hot * log_p).sum(dim=1).mean())


# %% 05-loop
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        show(loss.item())


# %% 05-loop
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        show(loss.item())


# %% 05-loop
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=1e-3, betas=(0.9, 0.95))
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.audio_projector.parameters(), max_norm=0.5)
        optimizer.step()
        optimizer.zero_grad()
        show(loss.detach())


# %% 05-loop
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for batch in batches:
        output = model(**batch)
        output.loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        for weight in projector.parameters():
            weight.grad = None
        show(output.loss.item())


# %% 05-loop
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=4e-3)
    for _, batch in enumerate(batches):
        loss = model(**batch).loss
        loss.backward()
        weights = list(projector.parameters())
        norm = sum(w.grad.square().sum() for w in weights).sqrt()
        for weight in weights:
            weight.grad *= min(1.0, 1.0 / float(norm))
        optimizer.step()
        optimizer.zero_grad()
        show(float(loss))


# %% 05-loop
def train(model, batches, show):
    projector = model.audio_projector
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        with torch.no_grad():
            for weight in projector.parameters():
                weight -= 0.3 * weight.grad
                weight.grad = None
        show(loss.item())


# %% 05-guess
guesses = (20.0, 1.0, 0.3)


# %% 05-guess
guesses = [10 + 10, torch.tensor(1), 0.3]


# %% 05-guess
guesses = np.array([20, 1, 0.3])


# %% 05-guess
guesses = torch.tensor([20.0, 1.0, 0.3])
