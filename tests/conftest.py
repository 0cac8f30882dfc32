import os
import tempfile

import pytest
import torch

# the models are so small that a second thread costs more than it brings, above all beside other processes
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)
# tables of an earlier run, whose folders had the same names, are not those of this one
_CACHE = tempfile.TemporaryDirectory(prefix="gve-datasets-", ignore_cleanup_errors=True)
os.environ["HF_DATASETS_CACHE"] = _CACHE.name


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
