"""`python -m recipes`: steps in order, with commands that can be given; a broken chain goes on."""

import argparse
import json
import shlex
import sys
from importlib import import_module

import pytest

from recipes import __main__ as chain
from recipes.__main__ import STEPS, Step, run, to_do, with_needs


def test_a_step_stands_behind_all_that_it_needs():
    seen = set()
    for step in STEPS:
        assert set(step.needs) <= seen, step.name
        assert step.name not in seen and step.cost
        seen.add(step.name)


class Parsed(Exception):
    pass


@pytest.mark.parametrize("step", STEPS, ids=[step.name for step in STEPS])
def test_each_command_is_one_that_its_program_takes(step, monkeypatch):
    module, *arguments = shlex.split(step.command)
    real = argparse.ArgumentParser.parse_args

    def parse(parser, *given):
        real(parser, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    if module in ("recipes.pairs", "recipes.curves"):  # take no options
        assert not arguments and import_module(module).main
        return
    with pytest.raises(Parsed):
        import_module(module).main()


def test_only_what_a_step_needs_is_done_for_it():
    names = [step.name for step in with_needs(["small-medium"])]
    assert names[-2:] == ["projectors", "small-medium"]
    assert "pack" in names and "encoder" not in names
    with pytest.raises(ValueError, match="no step smal; expected some of: text, parts"):
        with_needs(["smal"])


def test_a_chain_goes_on_where_it_broke_off(monkeypatch, tmp_path, capsys):
    def steps(second: str, first: str = "timeit -n 1 pass") -> tuple[Step, ...]:
        return Step("first", "a", first, "1 s"), Step("second", "b", second, "2 s", ("first",))

    monkeypatch.setattr(chain, "DONE", tmp_path / "done")
    monkeypatch.setattr(chain, "STEPS", steps("timeit -n 1 1/0"))
    with pytest.raises(ValueError, match="second failed with status 1"):
        run()
    assert "[2/2] second: makes b; took 2 s" in capsys.readouterr().out
    assert json.loads((tmp_path / "done" / "first.json").read_text())["command"]

    monkeypatch.setattr(chain, "STEPS", steps("timeit -n 1 pass"))
    assert [step.name for step in to_do(list(chain.STEPS))] == ["second"]
    run()
    assert to_do(list(chain.STEPS)) == []

    changed = steps("timeit -n 1 pass", first="timeit -n 2 pass")
    assert to_do(list(changed)) == list(changed)  # what builds on a step is done again with it
