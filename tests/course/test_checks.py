"""The machinery under the exercises: what a student reads, whatever the answer is; and the quiz."""

import numpy as np
import pytest
import torch

from tiny_asr.audio import pad_batch
from tiny_asr.course import checks
from tiny_asr.course.quiz import Question, Quiz, quiz


@pytest.fixture
def say(monkeypatch, capsys):
    """check() with a judge of our own: `say(judge, answer)` is the line that it prints."""

    def line(judge, answer) -> str:
        monkeypatch.setitem(checks._judges, "01-ours", judge)
        checks.check("01-ours", answer)
        out = capsys.readouterr().out
        assert out.count("\n") == 1 and out.endswith("\n")
        return out.strip().removeprefix("01-ours")

    return line


def equals(expected, **causes):
    """A judge that expects a value, or a function that returns it."""

    def judge(answer):
        came = answer() if callable(answer) else answer
        checks.expect("f()", came, expected, {name: value for name, value in causes.items()})

    return judge


@pytest.mark.parametrize("answer", [..., lambda: ..., lambda: (1, ...), [..., ...]])
def test_what_was_not_filled_in_is_not_attempted(say, answer):
    assert say(equals((1, 2)), answer) == "○ 01-ours: not attempted yet"


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (2, 2.0),
        (0.25, np.float32(0.25)),
        ([1, 2], torch.tensor([1.0, 2.0], requires_grad=True)),
        ([[1, 2]], [torch.tensor([1, 2])]),
        (torch.tensor([True, False]), [True, False]),
        (np.array([np.nan, 1.0]), [float("nan"), 1.0]),
        (torch.tensor([0.1], dtype=torch.float64), torch.tensor([0.1])),
        ("abc", "abc"),
        (torch.zeros(0), []),
    ],
)
def test_a_right_answer_gets_a_tick_whatever_its_type(say, expected, answer):
    assert say(equals(expected), answer) == "✓ 01-ours: right."
    assert say(equals(expected), lambda: answer) == "✓ 01-ours: right."


@pytest.mark.parametrize(
    ("expected", "answer", "words"),
    [
        (2, 3, "f() gave 3; expected 2."),
        (1_607_232, 1_607_231, "f() gave 1607231; expected 1607232."),
        (0.5, None, "gave None; expected 0.5. Likely cause: the function does not return"),
        ([1, 2], [1, 2, 3], "gave [1, 2, 3]; expected [1, 2]."),
        (torch.zeros(4, 4), torch.zeros(4, 5), "shape (4, 5); expected numbers of shape (4, 4)."),
        (
            torch.eye(3),
            torch.ones(3, 3),
            "gave the right shape (3, 3), but other values: "
            "1 at [0, 1], expected 0 (6 of 9 are off).",
        ),
        ([1, 2], [1, 3], "gave [1, 3]; expected [1, 2]: 3 at [1], expected 2 (1 of 2 are off)."),
        ([0.5, 0.00001], [0.5, 0.0004], "gave [0.5, 0.0004]; expected [0.5, 0.]: 0.0004 at [1]"),
        ([1e-5, 0.1], [4e-5, 0.1], "the right shape (2,), but other values: 4e-05 at [0], "),
        (list("abc") * 30, list("abc") * 29, "...; expected something else."),
        (2, "two", "gave 'two'; expected 2"),
        ("abc", 7, "gave 7; expected 'abc'"),
        ([1, 2], [[1], [1, 2]], "gave [[1], [1, 2]]; expected [1, 2]"),
        ([1, 2], [torch.zeros(9), torch.zeros(40)], "gave [tensor([0., 0., 0."),
    ],
)
def test_a_wrong_answer_is_told_what_came_and_what_was_expected(say, expected, answer, words):
    line = say(equals(expected), lambda: answer)
    assert line.startswith("✗ 01-ours: ") and words in line and len(line) < 250


def test_a_known_mistake_is_named(say):
    line = say(equals(6, sum=5, off_by_one=7), lambda: 7)
    assert line == "✗ 01-ours: f() gave 7; expected 6. Likely cause: off_by_one."


def test_a_known_mistake_in_many_numbers_is_named_with_the_first_of_them(say):
    line = say(equals(torch.zeros(3, 4), ones=torch.ones(3, 4)), lambda: torch.ones(3, 4))
    assert line == (
        "✗ 01-ours: f() gave the right shape (3, 4), but other values: "
        "1 at [0, 0], expected 0. Likely cause: ones."
    )


def test_code_that_stops_is_told_where(say):
    def answer():
        return [1, 2][5]

    line = say(equals(1), answer)
    assert "your code stopped with IndexError: list index out of range" in line
    assert "in `return [1, 2][5]`" in line


def test_code_that_calls_the_package_wrongly_is_told_its_own_line(say):
    def answer():
        return pad_batch([torch.zeros(0)], 160)

    assert "in `return pad_batch([torch.zeros(0)], 160)`" in say(equals(1), answer)


def test_an_answer_that_cannot_be_called_is_told_so(say):
    assert "stopped with TypeError" in say(lambda answer: answer(1), 3)


@pytest.mark.parametrize("identifier", ["01-nothing", "99-frames", "", "xx"])
def test_an_exercise_that_nobody_declared_is_a_mistake_of_the_authors(identifier):
    with pytest.raises(ValueError, match="came; expected"):
        checks.check(identifier, ...)


@pytest.mark.parametrize(
    ("token", "words"),
    [(int, "right. The same few lines write"), (torch.tensor, "right. Its tokens are tensors")],
)
def test_tokens_that_are_tensors_are_right_and_told_of_int(capsys, token, words):
    def write(next_logits, prompt, end, most):
        ids = list(prompt)
        while len(ids) < len(prompt) + most and (new := next_logits(ids).argmax()) != end:
            ids.append(token(int(new)))
        return ids[len(prompt) :]

    checks.check("04-greedy", write)
    line = capsys.readouterr().out
    assert line.startswith(f"✓ 04-greedy: {words}") and ("`int(token)`" in line) == (
        token is not int
    )


def test_a_loss_by_logsumexp_is_right_although_float32_rounds_it(capsys):
    def cross_entropy(logits, labels):
        logits, labels = logits[labels != -100], labels[labels != -100]
        log_p = logits - logits.logsumexp(dim=-1, keepdim=True)
        return -log_p.gather(1, labels[:, None]).mean()

    checks.check("05-entropy", cross_entropy)
    assert capsys.readouterr().out.startswith("✓ 05-entropy: right.")


QUESTION = Question("Is <b> bold?", {"no": "It is.", "yes & so on": "So it is."}, "b")


def test_a_quiz_answers_each_choice_at_once():
    _, first, second = Quiz([QUESTION, QUESTION]).children
    ask, *buttons, reply = first.children
    assert "Is &lt;b&gt; bold?" in ask.value and reply.value == ""
    assert [button.description for button in buttons] == ["a) no", "b) yes & so on"]
    buttons[0].click()
    assert "✗ Not quite. It is." in reply.value and buttons[0].button_style == "danger"
    buttons[1].click()
    assert "✓ Right. So it is." in reply.value and 'role="status"' in reply.value
    assert [button.button_style for button in buttons] == ["", "success"]
    assert second.children[-1].value == ""  # of the other question


def test_a_quiz_reads_well_where_nothing_runs():
    bundle = Quiz([QUESTION])._repr_mimebundle_()
    assert bundle["text/plain"] == "a quiz of 1 questions, in a running notebook"
    text = bundle["text/markdown"]
    assert text.index("b) yes") < text.index("<details>") < text.index("✓ Right.")
    assert quiz("01")._repr_mimebundle_()["text/markdown"] == quiz("01").markdown()
