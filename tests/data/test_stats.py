import json

from robopol.data import describe


def test_golden_in_numbers(golden):
    found = describe(golden)
    assert found["episodes"] == 2
    assert found["steps"] == 5
    assert found["length"] == {"min": 2, "mean": 2.5, "max": 3}
    assert found["return"] == {"min": 0.0, "mean": 0.5, "max": 1.0}
    assert found["success_rate"] == 0.5
    assert (found["terminated"], found["truncated"], found["final_obs"]) == (1, 1, 2)
    assert found["ends"] == {"terminated": 1, "truncated": 1, "both": 0, "neither": 0}
    state = {"shape": [1], "dtype": "float32", "min": [0.0], "max": [11.0], "constant": []}
    assert found["columns"]["obs.state"] == state


def test_everything_is_json(make_episodes):
    episodes = make_episodes([3, 2, 4], images=True, states=True)
    found = json.loads(json.dumps(describe(episodes)))
    assert found["ways"] == {"none": 1, "left": 1, "right": 1}
    assert found["sources"] == {"expert": 5, "human": 4}
    assert found["columns"]["obs.images.front"]["shape"] == [4, 5, 3]
    empty = json.loads(json.dumps(describe(episodes.select([]))))
    assert empty["success_rate"] is None


def test_constant_entries_are_named(golden):
    golden.obs["state"].fill_(2)
    assert describe(golden)["columns"]["obs.state"]["constant"] == [0]
