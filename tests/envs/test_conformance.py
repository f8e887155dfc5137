"""The backends on the CPU keep the contract of a batch."""

from conformance import Conformance

from robopol.envs import make_env

REACH = "robopol/Reach-v0"
CHEETAH = "HalfCheetah-v5"
MULTI_GOAL = "robopol/MultiGoal-v0"


class TestSerial(Conformance):
    @classmethod
    def make(cls, num_envs, short=False):
        return make_env(REACH, num_envs, backend="serial", max_episode_steps=2 if short else None)


class TestNative(Conformance):
    @classmethod
    def make(cls, num_envs, short=False):
        return make_env(REACH, num_envs, backend="native", max_episode_steps=2 if short else None)


class TestSerialLocomotion(Conformance):
    @classmethod
    def make(cls, num_envs, short=False):
        return make_env(CHEETAH, num_envs, backend="serial", max_episode_steps=2 if short else 50)


class TestNativeLocomotion(Conformance):
    @classmethod
    def make(cls, num_envs, short=False):
        return make_env(CHEETAH, num_envs, backend="native", max_episode_steps=2 if short else 50)


class TestMultiGoal(Conformance):
    @classmethod
    def make(cls, num_envs, short=False):
        return make_env(MULTI_GOAL, num_envs, obstacles="maze", max_episode_steps=2 if short else 50)
