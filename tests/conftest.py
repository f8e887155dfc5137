"""Settings of the whole test run."""

import torch
from hypothesis import settings

# A test is never timed, and must not depend on how many cores there are.
settings.register_profile("robopol", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("robopol")
torch.set_num_threads(1)
