"""Many worlds as one simulation on a GPU (or, slowly, on a CPU), by MuJoCo Warp."""
