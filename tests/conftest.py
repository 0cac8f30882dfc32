import os

import torch

# the models are so small that a second thread costs more than it brings, above all beside other processes
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)
