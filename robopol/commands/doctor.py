"""Check this machine, or a robot and whether a policy is fast enough for it.

  robopol doctor [--json]
  robopol doctor robot=NAME [checkpoint=DIR [record=FOLDER]] [--json]

Looks at versions, processor, GPU, OpenGL, video, optional packages, matrix products. With a robot: how punctual the
servo loop can be on this machine, how the arm answers (it is connected and read, neither armed nor moved), and, with a
checkpoint, whether its plans come in time, and, with what was recorded of the robot, whether they are plans at all.
The exit status is 1 if something that is needed does not work.
"""

import json


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    from robopol.doctor import diagnose, diagnose_robot

    rest = [word for word in words if word != "--json"]
    checks = diagnose_robot(rest) if rest else diagnose()
    if "--json" in words:
        print(json.dumps([check.tree() for check in checks], indent=2))
    else:
        for check in checks:
            print(f"{check.status:5} {check.name}: {check.detail}" + (f" -> {check.advice}" if check.advice else ""))
    return int(any(check.status == "fail" for check in checks))
