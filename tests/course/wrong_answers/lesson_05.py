# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 05: `# %% ID | what the check must say`.

import torch
from torch.nn.utils import clip_grad_norm_


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
    return torch.nn.functional.cross_entropy(logits, labels)


# %% 05-entropy | leaves the work to F.cross_entropy
def cross_entropy(logits, labels):
    return torch.nn.CrossEntropyLoss()(logits, labels)


# %% 05-guess | the first guess gave 10
guesses = [10, 1, 0.3]


# %% 05-guess | all numbers shrink by one factor
guesses = [20, 34, 0.3]


# %% 05-guess | what is short enough stays as it is
guesses = [20, 1, 1]


# %% 05-guess | expected a list of three numbers
guesses = 20


# %% 05-loop | `zero_grad` is missing
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        show(loss.item())


# %% 05-loop | `step` is missing
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.zero_grad()
        show(loss.item())


# %% 05-loop | `step` stands before `backward`
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        optimizer.step()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        show(loss.item())


# %% 05-loop | between `backward` and `step`
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.zero_grad()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        show(loss.item())


# %% 05-loop | clip it to 1
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        show(loss.item())


# %% 05-loop | clip it to 1
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.zero_grad()
        show(loss.item())


# %% 05-loop | the projector is frozen
def train(model, batches, show):
    projector = model.audio_projector
    projector.requires_grad_(False)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        show(loss.item())


# %% 05-loop | the optimiser holds other weights
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(model.encoder.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        projector.zero_grad()
        show(loss.item())


# %% 05-loop | `show` was given a tensor
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        show(loss)


# %% 05-loop | `loss.backward()` is missing
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        show(loss.item())


# %% 05-loop | Does `return` stand in the loop
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        show(loss.item())
        return


# %% 05-loop | more than one optimiser was made
def train(model, batches, show):
    projector = model.audio_projector
    for batch in batches:
        optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        show(loss.item())


# %% 05-loop | the model was never asked
def train(model, batches, show):
    for _ in batches:
        show(0.0)


# %% 05-loop | `show` was called 0 times
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


# %% 05-loop | look at the learning rate
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-7)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        show(loss.item())


# %% 05-cases | whose loss never moves
diagnosis = {"A": "wrong weights", "B": "wrong texts", "C": "rate too high", "D": "rate too low"}


# %% 05-cases | whose loss falls smoothly
diagnosis = {"A": "wrong texts", "B": "wrong weights", "C": "rate too low", "D": "rate too high"}


# %% 05-cases | expected one of
diagnosis = {"A": "wrong texts", "B": "frozen", "C": "rate too high", "D": "rate too low"}


# %% 05-cases | expected a mistake for each
diagnosis = {"A": "wrong texts"}


# %% 05-loop | `step` stands before `backward`
def train(model, batches, show):
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=2e-3)
    for batch in batches:
        optimizer.step()
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        show(loss.item())
