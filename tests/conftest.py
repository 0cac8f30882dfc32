import torch

# the models are so small that a second thread costs more than it brings, above all beside other processes
torch.set_num_threads(1)
