"""Programs that speak arms' wire protocols, with MuJoCo in place of the arm; see docs/arms.md for what that proves.

They run in processes of their own: ``python -m robopol.real_robot.emulators feetech``.
"""
