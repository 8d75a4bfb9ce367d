"""Corpora as their archives unpack: tags, splits, and nothing of the test split in another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from omnifleet_shared.errors import InvalidTrainingData
from omnifleet_worker.pairs.corpora import Recording, find_recordings, split_of
from omnifleet_worker.pairs.recipe import Corpus
from omnifleet_worker.training.examples.latent_cache import hash_file


def write_sound(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, 800), 8_000)


def found(*recordings: Recording) -> list[tuple[str, str, str]]:
    return sorted((one.path.name, one.tag, one.split) for one in recordings)


@pytest.fixture
def esc50(tmp_path: Path) -> Path:
    folder = tmp_path / "ESC-50-master"
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold, (name, category) in {1: ("a", "dog"), 4: ("b", "sea_waves"), 5: ("c", "rain")}.items():
        write_sound(folder / f"audio/{name}.wav", fold)
        rows.append(f"{name}.wav,{fold},0,{category},False,1,A")
    (folder / "meta").mkdir()
    (folder / "meta/esc50.csv").write_text("\n".join(rows))
    return folder


def test_esc50_is_split_by_its_folds(esc50: Path) -> None:
    recordings = find_recordings([Corpus(kind="esc50", folder=esc50)])

    assert found(*recordings) == [
        ("a.wav", "dog", "train"),
        ("b.wav", "sea waves", "validation"),
        ("c.wav", "rain", "test"),
    ]


def test_fsd50k_is_split_as_published_and_named_by_its_narrowest_label(tmp_path: Path) -> None:
    truth = tmp_path / "FSD50K.ground_truth"
    truth.mkdir()
    (truth / "dev.csv").write_text(
        'fname,labels,mids,split\n1,"Electric_guitar,Guitar,Music","/m/1",train\n2,Rain,/m/2,val\n'
    )
    (truth / "eval.csv").write_text("fname,labels,mids\n3,Bark,/m/3\n")
    for number, folder in {1: "dev", 2: "dev", 3: "eval"}.items():
        write_sound(tmp_path / f"FSD50K.{folder}_audio/{number}.wav", number)

    recordings = find_recordings([Corpus(kind="fsd50k", folder=tmp_path)])

    assert found(*recordings) == [
        ("1.wav", "electric guitar", "train"),
        ("2.wav", "rain", "validation"),
        ("3.wav", "bark", "test"),
    ]


def test_musan_and_any_folder_are_split_by_content(tmp_path: Path) -> None:
    for number in range(60):
        write_sound(tmp_path / f"musan/noise/free-sound/noise-{number}.wav", number)
        write_sound(tmp_path / f"sounds/Glass_break/{number}.wav", 100 + number)
    corpora = [
        Corpus(kind="musan", folder=tmp_path / "musan"),
        Corpus(kind="folder", folder=tmp_path / "sounds"),
    ]

    recordings = find_recordings(corpora, workers=2)

    assert len(recordings) == 120
    assert {one.tag for one in recordings} == {"noise", "glass break"}
    assert {one.split for one in recordings} == {"train", "validation", "test"}
    assert all(one.split == split_of(one.sha256) for one in recordings)
    assert sum(one.split == "train" for one in recordings) > 60


def test_a_recording_of_the_test_split_is_in_no_other_under_whatever_name(esc50: Path, tmp_path: Path) -> None:
    (tmp_path / "other/wind").mkdir(parents=True)
    for name in "abc":
        (tmp_path / f"other/wind/copy-of-{name}.wav").write_bytes((esc50 / f"audio/{name}.wav").read_bytes())
    corpora = [Corpus(kind="folder", folder=tmp_path / "other"), Corpus(kind="esc50", folder=esc50)]

    splits = {one.sha256: one.split for one in find_recordings(corpora)}

    assert len(find_recordings(corpora)) == len(splits) == 3
    strictness = ["test", "validation", "train"]
    for name, split in {"a": "train", "b": "validation", "c": "test"}.items():
        sha = hash_file(esc50 / f"audio/{name}.wav")
        assert splits[sha] == min(split, split_of(sha), key=strictness.index)


@pytest.mark.parametrize("kind", ["folder", "esc50", "fsd50k", "musan"])
def test_what_is_no_such_corpus_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InvalidTrainingData, match=r"holds no recordings|cannot be read"):
        find_recordings([Corpus.model_validate({"kind": kind, "folder": tmp_path})])


def test_a_listed_file_that_is_gone_is_named(esc50: Path) -> None:
    (esc50 / "audio/b.wav").unlink()

    with pytest.raises(InvalidTrainingData, match=r"there is no file .*b\.wav"):
        find_recordings([Corpus(kind="esc50", folder=esc50)])


def test_a_table_without_its_columns_is_refused(esc50: Path) -> None:
    (esc50 / "meta/esc50.csv").write_text("filename,category\na.wav,dog\n")

    with pytest.raises(InvalidTrainingData, match="has no column fold"):
        find_recordings([Corpus(kind="esc50", folder=esc50)])
