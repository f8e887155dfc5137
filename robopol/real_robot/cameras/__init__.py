"""The cameras; one file each, see `robopol.real_robot.camera`."""
