"""Images that are brought to the device block after block: which, in which order, and the same when resumed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_runs import _assert_same, _interrupt, _often_saved

from vaelib import TrainConfig, models, runs, training
from vaelib.data import Dataset, Split

BLOCKS = TrainConfig(latent_dim=2, epochs=3, batch_size=16, block=64)


def _numbered(count):
    """Images that tell their number, and otherwise nothing: the i-th has i // 16 and 16 (i % 16) as grey values."""
    numbers = torch.arange(count)
    pixels = torch.stack([numbers // 16, 16 * (numbers % 16)], 1).view(count, 1, 1, 2).expand(-1, -1, 2, -1)
    return Dataset("numbered", Split(pixels.to(torch.uint8).contiguous()), Split(torch.full((8, 1, 2, 2), 200).byte()))


def _numbers(images):
    return (16 * images[:, 0, 0, 0].int() + images[:, 0, 0, 1].int() // 16).tolist()


def _epochs(data, settings, done=0):
    """The numbers of each batch's images, in two epochs."""
    images, shuffle = training._Images(data.train, settings, torch.device("cpu"), False), torch.Generator()
    return [[_numbers(batch) for (batch,) in images.epoch(shuffle, done)] for _ in range(2)]


@pytest.mark.filterwarnings("ignore:the largest pixel value")
@pytest.mark.parametrize("count", [200, 192, 193, 50, 65, 1])  # also with one that is left, of a block and of a batch
@pytest.mark.parametrize("block", [16, 48, 64, 1600])
def test_every_epoch_sees_every_image_once_and_its_blocks_in_another_order(count, block):
    data, settings = _numbered(count), replace(BLOCKS, block=block)
    epochs = _epochs(data, settings)
    sizes = [len(batch) for batch in training.batches(torch.arange(count), settings.batch_size)]
    assert len({*sizes}) <= 2
    last = (count - 1) // block if count > 1 else 0
    if count % block == 1 and last:  # one image that is left joins the block before it
        last -= 1
    orders = []
    for batches in epochs:
        assert sorted(map(len, batches)) == sorted(sizes)  # those of a training without blocks: no more shapes
        numbers = [number for batch in batches for number in batch]
        assert sorted(numbers) == list(range(count))
        assert numbers != sorted(numbers) or count == 1
        of_blocks = [{min(number // block, last) for number in batch} for batch in batches]
        assert all(len(blocks) == 1 for blocks in of_blocks)  # a batch is of a single block
        flat = [blocks.pop() for blocks in of_blocks]
        order = [block for position, block in enumerate(flat) if flat[position - 1 : position] != [block]]
        assert sorted(order) == list(range(last + 1))  # each comes once, and then whole
        orders.append(order)
    assert epochs[0] != epochs[1] or count == 1
    if last > 2:
        assert orders[0] != orders[1]


@pytest.mark.filterwarnings("ignore:the largest pixel value")
@pytest.mark.parametrize("done", [1, 3, 4, 5, 12, 13])
def test_an_epoch_that_goes_on_reads_only_what_is_left(done, monkeypatch):
    data, read = _numbered(200), []
    expected = _epochs(data, BLOCKS)[0][done:]
    monkeypatch.setattr(training._Images, "_read", lambda self, order: read.append(len(order)) or self._gather(order))
    images = training._Images(data.train, BLOCKS, torch.device("cpu"), False)
    assert [_numbers(batch) for (batch,) in images.epoch(torch.Generator(), done)] == expected
    left = sum(map(len, expected))
    assert left <= sum(read) < left + BLOCKS.block


@pytest.mark.parametrize("block", [224, 320])
def test_a_block_of_all_images_trains_as_no_block_does(trained, tiny, tmp_path, block):
    run = runs.train(tiny, replace(trained.config, block=block), tmp_path, "cpu")
    _assert_same(run, trained)


def test_a_smaller_block_is_another_run_which_its_name_and_record_tell(trained, tiny, tmp_path):
    run = runs.train(tiny, replace(trained.config, block=64), tmp_path, "cpu")
    assert run.folder.name == f"{trained.folder.name}-block64"
    assert run.record["settings"]["block"] == run.config.block == 64
    assert run.evaluation != trained.evaluation
    again = runs.train(tiny, replace(trained.config, block=64), tmp_path / "again", "cpu")
    _assert_same(again, run)


def test_a_run_in_blocks_that_is_interrupted_goes_on_as_if_it_had_not_been(tiny, tmp_path, monkeypatch):
    whole = runs.train(tiny, BLOCKS, tmp_path / "whole", "cpu")
    _often_saved(monkeypatch)
    for call in (3, 4, 5, 9, 11, 13):  # within blocks, between two, and at the end of an epoch
        with monkeypatch.context() as patch:
            _interrupt(patch, training._State, "take_step", call)
            with pytest.raises(KeyboardInterrupt):
                runs.train(tiny, BLOCKS, tmp_path / "parts", "cpu")
        assert (tmp_path / "parts" / whole.folder.name / "checkpoint").exists()
    _assert_same(runs.train(tiny, BLOCKS, tmp_path / "parts", "cpu"), whole)


def test_a_checkpoint_of_another_block_is_refused(tiny, tmp_path):
    training.fit(models.mlp(tiny.image_shape, 2), tiny, BLOCKS, tmp_path, checkpoint_seconds=0)
    with pytest.raises(ValueError, match="checkpoint is of a training with block 64, not 128"):
        training.fit(models.mlp(tiny.image_shape, 2), tiny, replace(BLOCKS, block=128), tmp_path)


def test_images_that_are_mapped_from_a_file_are_trained_in_blocks(tiny, tmp_path):
    np.save(tmp_path / "images.npy", tiny.train.images.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="c"))
    on_disk = Dataset("tiny", Split(mapped, tiny.train.labels), tiny.test, tiny.names)
    run, expected = (runs.train(each, BLOCKS, tmp_path / str(id(each)), "cpu") for each in (on_disk, tiny))
    _assert_same(run, expected)


@pytest.mark.parametrize("value", [0, -16, 2.5, "many", True])
def test_settings_refuse_a_block_that_is_no_positive_whole_number(value):
    with pytest.raises(ValueError, match="block must be a whole number of at least 1, not"):
        TrainConfig(2, block=value)


def test_settings_refuse_a_block_that_batches_do_not_fill():
    with pytest.raises(ValueError, match="block must be a multiple of the batch size, 128, not 1000"):
        TrainConfig(2, block=1000)
    assert TrainConfig(2, batch_size=100, block=np.int64(1000)).block == 1000
