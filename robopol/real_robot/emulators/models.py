"""The arms that are emulated, as MJCF made of primitives; of every joint a position servo of the same name."""

from pathlib import Path

from robopol.errors import RobotError

# The SO-101's link offsets, masses, joint ranges and servo constants: TheRobotStudio/SO-ARM100,
# Simulation/SO101/so101_new_calib.xml and joints_properties.xml (its STS3215 fit). The shapes are nominal, and the
# joints' axes are made to meet: its sideways offsets of some millimetres are left out. At zero the upper arm stands
# upright and the rest points forwards.
_SO101_JOINTS = {
    "shoulder_pan": (-1.91986, 1.91986),
    "shoulder_lift": (-1.74533, 1.74533),
    "elbow_flex": (-1.69, 1.69),
    "wrist_flex": (-1.65806, 1.65806),
    "wrist_roll": (-2.74385, 2.84121),
    "gripper": (-0.17453, 1.74533),
}
_SO101 = """
<mujoco model="so101">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="0.002" integrator="implicitfast"/>
  <default>
    <geom type="capsule" contype="{solid}" conaffinity="{solid}" rgba="0.9 0.75 0.2 1"/>
    <joint damping="0.60" frictionloss="0.052" armature="0.028"/>
    <position kp="998.22" kv="2.731" forcerange="-3.35 3.35"/>
  </default>
  <worldbody>
    <light pos="0 0 1.5"/>{table}
    <body name="base">
      <geom type="box" size="0.04 0.03 0.025" pos="0 0 0.025" mass="0.147"/>
      <body name="shoulder" pos="0.0388353 0 0.0624">
        <joint name="shoulder_pan" axis="0 0 1" range="{shoulder_pan}"/>
        <geom fromto="0 0 0 -0.0303992 0 0.0542" size="0.02" mass="0.100006"/>
        <body name="upper_arm" pos="-0.0303992 0 0.0542">
          <joint name="shoulder_lift" axis="0 1 0" range="{shoulder_lift}"/>
          <geom fromto="0 0 0 0.028 0 0.11257" size="0.018" mass="0.103"/>
          <body name="lower_arm" pos="0.028 0 0.11257">
            <joint name="elbow_flex" axis="0 1 0" range="{elbow_flex}"/>
            <geom fromto="0 0 0 0.1349 0 0.0052" size="0.016" mass="0.104"/>
            <body name="wrist" pos="0.1349 0 0.0052">
              <joint name="wrist_flex" axis="0 1 0" range="{wrist_flex}"/>
              <geom fromto="0 0 0 0.0611 0 0" size="0.016" mass="0.079"/>
              <body name="hand" pos="0.0611 0 0">
                <joint name="wrist_roll" axis="1 0 0" range="{wrist_roll}"/>
                <geom fromto="0.02 -0.015 0 0.0981 -0.005 0" size="0.008" mass="0.087"/>
                <site name="tool" pos="0.0981 0 0" size="0.004"/>
                <body name="jaw" pos="0.0234 0.0202 0">
                  <joint name="gripper" axis="0 0 1" range="{gripper}"/>
                  <geom fromto="0 0 0 0.07 -0.018 0" size="0.006" mass="0.012"/>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>{servos}</actuator>
</mujoco>
"""


_TABLE = '<geom name="table" type="plane" size="1 1 0.1" rgba="0.8 0.8 0.8 1"/>'


def so101(table: bool = False) -> str:
    """Write an SO-101 with five joints and a gripper, which is a servo as the others are.

    Args:
        table: Whether it stands on a table, and its shapes are solid: the model by which distances are looked at.
    """
    ranges = {name: f"{low} {high}" for name, (low, high) in _SO101_JOINTS.items()}
    servos = "".join(f'<position name="{n}" joint="{n}" ctrlrange="{r}"/>' for n, r in ranges.items())
    return _SO101.format(servos=servos, solid=int(table), table=_TABLE if table else "", **ranges)


def ur5e() -> str:
    """Write the arm of robopol's own suite without a hand; this imports `robopol.envs`, and with it torch."""
    from robopol.envs.ur5e import arm_actuators, arm_body

    materials = "".join(
        f'<material name="{name}" rgba="{rgba}"/>'
        for name, rgba in (("tube", "0.8 0.82 0.85 1"), ("joint", "0.36 0.55 0.76 1"), ("dark", "0.2 0.2 0.2 1"))
    )
    return (
        '<mujoco model="ur5e"><compiler angle="radian" autolimits="true"/>'
        '<option timestep="0.002" integrator="implicitfast"/>'
        '<default><default class="arm"><geom contype="0" conaffinity="0" mass="0"/></default></default>'
        f'<asset>{materials}</asset><worldbody><light pos="0 0 2"/>{arm_body("")}</worldbody>'
        f"<actuator>{arm_actuators()}</actuator></mujoco>"
    )


def read(name: str) -> str:
    """Return a model's MJCF.

    Args:
        name: "so101", "ur5e", or the path of an MJCF file whose every joint has a position servo of its name.

    Raises:
        RobotError: If there is no such file.
    """
    shipped = {"so101": so101, "ur5e": ur5e}
    if name in shipped:
        return shipped[name]()
    path = Path(name).expanduser()
    if not path.is_file():
        raise RobotError(f"there is no model '{name}': name an MJCF file, or one of {', '.join(shipped)}")
    return path.read_text(encoding="utf-8")
