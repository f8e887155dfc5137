"""How what a policy tried is scored, one way a file: the half of a policy-gradient method that knows the policy."""

from robopol.algos.scoring.scoring import Reduction, Said, Scoring, ScoringConfig

__all__ = ["Reduction", "Said", "Scoring", "ScoringConfig"]
