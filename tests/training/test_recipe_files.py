"""The recipes that lie beside the pairs: they load, say where they come from, and train."""

import pytest
from conftest import REPOSITORY
from fixtures_models import decoder_dir, encoder_dir
from small_runs import clips, train

from tiny_asr.data.named import NAMED
from tiny_asr.training.settings import TrainingSettings

RECIPES = sorted((REPOSITORY / "data" / "models").glob("*/from_zero.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_a_recipe_is_of_its_pair_and_chooses_its_model_on_other_data(recipe):
    settings = TrainingSettings.load(recipe)
    assert f"{settings.model}-asr" == recipe.parent.name and settings.fresh
    assert settings.eval_data not in (None, settings.data)
    assert settings.out.startswith("runs/") and settings.max_utterances > settings.eval_every


@pytest.mark.parametrize("pair", ["medium", "full"])
def test_the_recipes_for_a_gpu_augment_and_name_known_data(pair):
    settings = TrainingSettings.load(RECIPES[0].parents[1] / f"{pair}-asr" / "from_zero.yaml")
    assert settings.augment.changes_waveform and settings.augment.time_masks > 0
    assert {settings.data, settings.eval_data} <= NAMED.keys()


def test_a_recipe_trains_as_it_stands_on_small_models_and_a_few_clips(tmp_path):
    small = {"encoder": encoder_dir(), "decoder": decoder_dir(), "device": "cpu", "compile": False}
    small |= {"data": clips(), "eval_data": clips(3, 1), "max_utterances": 12, "workers": 1}
    recipe = RECIPES[0].parents[1] / "full-asr" / "from_zero.yaml"
    settings = TrainingSettings.load(recipe, out=tmp_path / "run", **small)
    trainer, _ = train(settings)
    assert trainer.state.best is not None and trainer.state.skipped == 0
