"""Check this machine.

  robopol doctor [--json]

Looks at versions, processor, GPU, OpenGL, video, optional packages, matrix products. The exit status is 1
if something that robopol needs does not work.
"""

import json


def run(words: list[str]) -> int:
    """Run the verb; see the module's text."""
    from robopol.doctor import diagnose

    checks = diagnose()
    if "--json" in words:
        print(json.dumps([check.tree() for check in checks], indent=2))
    else:
        for check in checks:
            print(f"{check.status:5} {check.name}: {check.detail}" + (f" -> {check.advice}" if check.advice else ""))
    return int(any(check.status == "fail" for check in checks))
