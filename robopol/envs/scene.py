"""A table with the arm on it: the MJCF around the objects of a task."""

from robopol.envs.gripper import gripper_actuator, gripper_body, gripper_drive
from robopol.envs.ur5e import arm_actuators, arm_body

PHYSICS_HZ = 400
"""Physics steps a second; the length of a physics step is 2.5 ms."""

_DEFAULTS = """
<default>
  <default class="arm"><geom contype="1" conaffinity="2" group="1" mass="0"/></default>
  <default class="hand"><geom contype="1" conaffinity="2" group="1" material="dark"/></default>
  <default class="finger">
    <geom contype="1" conaffinity="2" group="1" material="finger" friction="0.8 0.005 0.0001" condim="4"/>
  </default>
  <default class="object"><geom contype="2" conaffinity="3" friction="0.5 0.005 0.0001" condim="4"/></default>
  <default class="mark"><geom contype="0" conaffinity="0" mass="0"/></default>
</default>
"""

_ASSETS = """
<asset>
  <texture type="skybox" builtin="gradient" rgb1="0.87 0.90 0.94" rgb2="0.55 0.60 0.68" width="64"
    height="384"/>
  <texture name="floor" type="2d" builtin="checker" rgb1="0.60 0.62 0.65" rgb2="0.56 0.58 0.61" width="256"
    height="256"/>
  <material name="floor" texture="floor" texrepeat="8 8"/>
  <material name="table" rgba="0.83 0.76 0.66 1" specular="0.1" shininess="0.1"/>
  <material name="leg" rgba="0.35 0.35 0.38 1"/>
  <material name="tube" rgba="0.80 0.82 0.85 1" specular="0.5" shininess="0.6"/>
  <material name="joint" rgba="0.36 0.55 0.76 1" specular="0.4" shininess="0.5"/>
  <material name="dark" rgba="0.18 0.19 0.21 1" specular="0.3" shininess="0.4"/>
  <material name="finger" rgba="0.30 0.31 0.34 1"/>
  <material name="red" rgba="0.85 0.25 0.20 1" specular="0.3"/>
  <material name="blue" rgba="0.16 0.40 0.80 1" specular="0.3"/>
  <material name="green" rgba="0.20 0.65 0.32 1" specular="0.3"/>
  <material name="yellow" rgba="0.95 0.75 0.20 1" specular="0.3"/>
  <material name="slate" rgba="0.33 0.37 0.45 1" specular="0.2"/>
  <material name="goal" rgba="0.20 0.70 0.35 0.75"/>
</asset>
"""

# The plane is what things rest on (plane contacts are the cheapest and steadiest); the box is what is seen. Contact
# bits: 1 arm and fingers, 2 objects, 4 what touches nothing but the table.
_WORLD = """
<light pos="0.3 -0.9 1.8" dir="0.1 0.5 -1" diffuse="0.45 0.45 0.43" specular="0.1 0.1 0.1" castshadow="true"/>
<light pos="1.4 0.9 1.6" dir="-0.6 -0.5 -1" diffuse="0.20 0.20 0.22" specular="0 0 0" castshadow="false"/>
<geom name="floor" type="plane" pos="0 0 -0.75" size="4 4 0.1" material="floor" contype="0" conaffinity="0"/>
<geom name="table" class="object" type="plane" size="1 1 0.1" group="3" contype="0" conaffinity="7"/>
<geom type="box" class="mark" pos="0.45 0 -0.0201" size="0.65 0.6 0.02" material="table"/>
<geom type="box" class="mark" pos="0.45 0 -0.39" size="0.5 0.45 0.35" material="leg"/>
<camera name="front" pos="1.22 0 0.70" xyaxes="0 1 0 -0.66 0 0.75" fovy="42"/>
"""


def scene_mjcf(name: str, objects: str) -> str:
    """Write the whole model of a task.

    Args:
        name: Name of the model.
        objects: MJCF elements of the world body; geoms that collide use class "object", painted marks class
            "mark".

    Returns:
        MJCF in metres, kilograms, radians; cameras "front" and "wrist".
    """
    return (
        f'<mujoco model="{name}">'
        '<compiler angle="radian" autolimits="true"/>'
        f'<option timestep="{1 / PHYSICS_HZ}" integrator="implicitfast" cone="pyramidal" impratio="10" '
        'iterations="20" ls_iterations="20"/>'
        '<visual><global offwidth="1280" offheight="1024"/><quality shadowsize="2048"/>'
        '<headlight ambient="0.34 0.34 0.34" diffuse="0.12 0.12 0.12" specular="0 0 0"/></visual>'
        f"{_DEFAULTS}{_ASSETS}"
        f"<worldbody>{_WORLD}{arm_body(gripper_body())}{objects}</worldbody>"
        f"{gripper_drive()}"
        f"<actuator>{arm_actuators()}{gripper_actuator()}</actuator>"
        "</mujoco>"
    )
