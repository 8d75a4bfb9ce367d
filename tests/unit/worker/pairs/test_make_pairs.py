"""Pairs follow from the seed, are made once, and can be made again from their lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import omnifleet_worker.cli
import pytest
import soundfile
import yaml
from numpy.typing import NDArray
from omnifleet_shared.errors import InvalidTrainingConfig, InvalidTrainingData, MediaEmpty
from omnifleet_worker.pairs import maker
from omnifleet_worker.pairs.corpora import Recording
from omnifleet_worker.pairs.maker import make_pairs, rebuild_pairs
from omnifleet_worker.pairs.mixer import mix
from omnifleet_worker.pairs.pair_plan import PairPlan, PairPlanner
from omnifleet_worker.pairs.recipe import PairRecipe, Split, read_recipe
from omnifleet_worker.training.examples.data import read_examples
from omnifleet_worker.training.examples.latent_cache import hash_file
from typer.testing import CliRunner

RATE = 22_050
PAIRS = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tones and noise of three seconds."""
    random = np.random.default_rng(0)
    time = np.arange(3 * RATE) / RATE
    for number in range(4):
        sounds = {
            "tone": 0.3 * np.sin(2 * np.pi * (300 + 100 * number) * time),
            "noise": random.uniform(-0.2, 0.2, len(time)),
        }
        for tag, samples in sounds.items():
            (tmp_path / "sounds" / tag).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / f"sounds/{tag}/{number}.wav", samples, RATE)
    return tmp_path


def recipe_of(folder: Path, **changes: Any) -> PairRecipe:
    values = {
        "out": "pairs",
        "corpora": [{"kind": "folder", "folder": "sounds"}],
        "pairs": {"train": PAIRS},
        "seconds": [1.0, 2.0],
    }
    (folder / "pairs.yaml").write_text(yaml.safe_dump(values | changes))
    return read_recipe(folder / "pairs.yaml")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "pairs").rglob("*") if path.is_file()}


def plans_of(path: Path) -> list[PairPlan]:
    return [PairPlan.model_validate(json.loads(line)["made"]) for line in path.read_text().splitlines()]


def decibels(samples: NDArray[np.floating]) -> float:
    return float(10 * np.log10(np.square(samples, dtype=np.float64).mean()))


def test_training_reads_the_pairs(folder: Path) -> None:
    (path,) = make_pairs(recipe_of(folder))

    examples = read_examples([path])

    assert len(examples) == PAIRS
    assert {example.line.task for example in examples} <= {"add", "remove", "extract", "style"}
    assert all(1.0 <= example.seconds <= 2.01 for example in examples)


def test_the_same_seed_makes_the_same_pairs_however_many_threads_do(folder: Path) -> None:
    make_pairs(recipe_of(folder), workers=3)
    first = contents(folder)
    for path in (folder / "pairs").rglob("*.*"):
        path.unlink()

    make_pairs(recipe_of(folder))

    assert contents(folder) == first
    assert len(first) == 2 * PAIRS + 1


def test_another_seed_makes_others(folder: Path) -> None:
    one, other = (plans_of(make_pairs(recipe_of(folder, seed=seed, out=f"of-{seed}"))[0]) for seed in (0, 1))

    assert one != other


def test_a_changed_recipe_never_takes_files_of_the_one_before(folder: Path) -> None:
    make_pairs(recipe_of(folder))
    recipe = recipe_of(folder, seed=1)
    (path,) = make_pairs(recipe)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    listed = [(folder / "pairs" / line["target"]).read_bytes() for line in lines]
    for file in (folder / "pairs").rglob("*.flac"):
        file.unlink()

    make_pairs(recipe)

    assert [(folder / "pairs" / line["target"]).read_bytes() for line in lines] == listed


def test_an_interrupted_run_goes_on_and_makes_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PairPlan] = []

    def mix_three(plan: PairPlan) -> Any:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(plan)
        return mix(plan)

    with monkeypatch.context() as patch:
        patch.setattr(maker, "mix", mix_three)
        with pytest.raises(KeyboardInterrupt):
            make_pairs(recipe_of(folder))
    left = contents(folder)

    with monkeypatch.context() as patch:
        patch.setattr(maker, "mix", lambda plan: made.append(plan) or mix(plan))
        (path,) = make_pairs(recipe_of(folder))

    assert len(left) == 6 and "train.jsonl" not in left
    assert made == plans_of(path)
    assert contents(folder).items() >= left.items()


def test_every_pair_is_made_again_from_its_line_alone(folder: Path) -> None:
    (path,) = make_pairs(recipe_of(folder))
    before = contents(folder)
    (folder / "pairs.yaml").unlink()
    gone = sorted((folder / "pairs/audio").iterdir())[:3]
    for file in gone:
        file.unlink()

    again = CliRunner().invoke(omnifleet_worker.cli.app, ["make-pairs", "--rebuild", str(path)])

    assert again.exit_code == 0, again.output
    assert "2 pairs were made again" in again.output
    assert contents(folder) == before


def test_a_pair_is_not_made_of_another_recording_than_its_own(folder: Path) -> None:
    (path,) = make_pairs(recipe_of(folder))
    (plan, *_) = plans_of(path)
    next((folder / "pairs/audio").iterdir()).unlink()
    soundfile.write(plan.named.path, np.ones(RATE), RATE)

    for file in (folder / "pairs/audio").iterdir():
        file.unlink()
    with pytest.raises(InvalidTrainingData, match="is not the file that the pair was drawn with"):
        rebuild_pairs(path)


def test_a_line_that_was_not_made_is_not_rebuilt(folder: Path) -> None:
    path = folder / "list.jsonl"
    path.write_text('{"task": "t2a", "text": "rain", "target": "a.wav"}\n')

    with pytest.raises(InvalidTrainingData, match=r"list\.jsonl:1: it is no pair that was made"):
        rebuild_pairs(path)


def plan(folder: Path, task: str, snr_db: float = 6.0, **changes: Any) -> PairPlan:
    def ingredient(tag: str) -> dict[str, Any]:
        path = folder / f"sounds/{tag}/0.wav"
        return {"path": path, "sha256": hash_file(path), "speed": 1.0, "place": 0.0}

    words = {"text": "a tone", "replaces": "noise" if task == "style" else None}
    levels = {"snr_db": snr_db, "level_db": -26.0, "seconds": 2.0}
    parts = {"named": ingredient("tone"), "other": ingredient("noise")}
    return PairPlan.model_validate({"task": task, **words, **levels, **parts, **changes})


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 15.0])
def test_an_added_sound_is_as_loud_beside_the_other_as_the_plan_says(folder: Path, snr_db: float) -> None:
    source, target = mix(plan(folder, "add", snr_db))

    assert len(source) == len(target) == 2 * 44_100
    assert decibels(target - source) - decibels(source) == pytest.approx(snr_db, abs=0.01)


def test_the_tasks_are_those_of_the_model(folder: Path) -> None:
    made = {task: mix(plan(folder, task)) for task in ("add", "remove", "extract", "style")}

    other, both = made["add"]
    assert np.array_equal(made["remove"][0], both) and np.array_equal(made["remove"][1], other)
    assert np.array_equal(made["extract"][0], both)
    assert np.allclose(made["extract"][1], both - other, atol=1e-6)
    assert np.array_equal(made["style"][0], other) and np.array_equal(made["style"][1], made["extract"][1])


def test_a_loud_pair_stays_below_full_scale_and_keeps_its_balance(folder: Path) -> None:
    source, target = mix(plan(folder, "add", 15.0, level_db=-6.0))

    assert float(np.abs(target).max()) == pytest.approx(0.99, abs=1e-4)
    assert decibels(target - source) - decibels(source) == pytest.approx(15.0, abs=0.01)


def test_a_short_recording_lies_where_the_plan_says(folder: Path) -> None:
    soundfile.write(folder / "sounds/tone/0.wav", 0.3 * np.ones(RATE), RATE)
    late = plan(folder, "extract")

    _, target = mix(late.model_copy(update={"named": late.named.model_copy(update={"place": 1.0})}))

    assert not target[:43_000].any()
    assert target[46_000:].all()


def test_silence_is_refused(folder: Path) -> None:
    soundfile.write(folder / "sounds/tone/0.wav", np.zeros(RATE), RATE)

    with pytest.raises(MediaEmpty, match="is silent"):
        mix(plan(folder, "add"))


def recordings(split: Split) -> list[Recording]:
    return [Recording(Path(f"{split}-{tag}.wav"), tag, split, "0" * 64) for tag in ("rain", "wind", "bark")]


def test_a_split_is_made_of_its_own_recordings_and_any_pair_is_drawn_alone(folder: Path) -> None:
    every = [*recordings("train"), *recordings("test")]
    recipe = recipe_of(folder, tasks={"add": 3, "style": 1}, snr={"mean": 0, "deviation": 20, "least": -5, "most": 5})

    plans = [PairPlanner(recipe, every, "test").plan(number) for number in range(400)]

    assert {one.path.name.split("-")[0] for plan in plans for one in (plan.named, plan.other)} == {"test"}
    assert all(plan.named.path != plan.other.path for plan in plans)
    assert all(-5 <= plan.snr_db <= 5 and 0.95 <= plan.named.speed <= 1.05 for plan in plans)
    assert sum(plan.task == "add" for plan in plans) == pytest.approx(300, abs=40)
    assert all((plan.replaces is not None) == (plan.task == "style") for plan in plans)
    assert PairPlanner(recipe, every, "test").plan(123) == plans[123]


def test_a_split_without_two_tags_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidTrainingData, match="validation has recordings of 1 tags"):
        PairPlanner(recipe_of(folder), recordings("validation")[:1], "validation")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"corpora": []}, "corpora"),
        ({"pairs": {"dev": 1}}, "pairs.dev.[key]"),
        ({"tasks": {"t2a": 1}}, "tasks.t2a.[key]"),
        ({"snr": {"least": 5, "most": 1}}, "snr"),
        ({"seconds": [5, 2]}, "recipe"),
        ({"seeds": 1}, "seeds"),
    ],
)
def test_a_wrong_recipe_names_its_field(folder: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTrainingConfig) as raised:
        recipe_of(folder, **changes)

    assert raised.value.field == field


@pytest.mark.parametrize(("text", "words"), [("out: [", "is no YAML"), (None, "cannot be read")])
def test_a_recipe_that_cannot_be_read_is_said(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "pairs.yaml").write_text(text)

    with pytest.raises(InvalidTrainingConfig, match=words):
        read_recipe(tmp_path / "pairs.yaml")
