"""Networks: plain modules that know nothing of policies, and the precision they are computed in."""
