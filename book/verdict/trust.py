# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Can its files be trusted?
#
# **What becomes of a training when the machine does not play along?** A reproduction rests on files: a run is what its record says, or it is nothing.
# So this book comes with a program that tries to lose work or to falsify it, `tests/system/campaign.py`. It kills processes at random moments, cuts the power,
# fills disks, lets two processes fall upon one run, damages files and makes up others, and then looks at what is left. This page shows what it counted.
#
# ## What this package never does to your work
#
# - *It loses nothing that was finished.* A file is written under another name, brought to the disk, and only then given its own; a run's last checkpoint goes
#   when all that replaces it is on the disk.
# - *It goes on as if nothing had happened.* A stopped training, resumed on the same kind of processor with as many threads, ends with the same weights and
#   metrics as an uninterrupted one: every bit, on the CPU.
# - *Its records are of what was trained.* One process at a time holds a run; what it was made of, data, settings and functions, is written by whoever holds it. A run
#   knows the checksums of its weights and its metrics, already before its evaluation has ended, and what no longer agrees with them is refused by name.
# - *It leaves another version's work to that version.* A checkpoint that this version cannot go on from is refused, and the message says which version can finish it.
# - *It runs nothing that a file says.* Weights and checkpoints are numbers; a made-up file is an error message.
#
# ## What was tried
#
# Each trial ends in one of four ways. *The same result*, as without the fault. *Told*: an error, or a warning, that names the file. *Unnoticed*:
# other data than before, and no word of it. *A fault of ours*: finished work is gone, a record is false, a result is another one, or a traceback
# stands where a message should.

# %% tags=["hide-input"]
import json
from pathlib import Path

from IPython.display import Markdown
from tabulate import tabulate

campaign = json.loads(Path("../records/campaign.json").read_bytes())
headers = [
    "what was done",
    "trials",
    "the same result",
    "told",
    "unnoticed",
    "faults of ours",
]
Markdown(tabulate(campaign["rows"], headers, tablefmt="github"))

# %%
counts = [row[1:] for row in campaign["rows"]]
trials, same, told, unnoticed, faults = map(sum, zip(*counts, strict=True))
assert trials == same + told + unnoticed + faults and faults == 0
print(f"{trials:,} trials in {campaign['minutes']} minutes: {same:,} same,")
print(f"{told:,} told, {unnoticed} unnoticed, {faults} faults of ours")
print(f"{campaign['platform']}, torch {campaign['torch']}")

# %% [markdown]
# The power was cut in two ways: on a real file system (ext4), which is told to stop at once and to forget what it had not written; and by a layer
# that leaves of a file only what had been brought to the disk before. A process is killed by a signal that it cannot catch.
#
# ## What it cannot promise
#
# - *That a photograph is as it was.* CelebA's images are known by their names and sizes, so that 202,599 files need not be read each time. If a bit of one
#   is changed before it is decoded for the first time, only the decoder could notice, and it often does not: these are the unnoticed ones above. MNIST's
#   files, and the decoded images, have checksums that are compared at every start.
# - *The same bits elsewhere.* Another processor, another number of threads or a GPU rounds sums differently, and a training then ends near, not at, the
#   same weights. How near, the spread over seeds tells.
# - *That it sees all that a function does.* A record has a hash of what your functions (a model, an objective) do and of what they read, so that a
#   changed function is another run. What they take from files, from the network or from the clock is not in it.
# - *That a training is alone with its random numbers.* A thread of your own that draws from torch's global generators while a model trains in the same process
#   changes what the model draws. So do Python's and NumPy's random numbers in an objective: no seed of a run decides them.
# - *Disks that lie.* A disk that calls written what is only in its memory can lose it, whatever a program does.
# - *More than was tried.* The campaign ran on Linux alone, and chance decided its moments: `python tests/system/campaign.py --seed 1` tries others.
