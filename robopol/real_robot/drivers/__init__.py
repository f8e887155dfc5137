"""One file an arm: what turns its wire into `robopol.real_robot.driver.Driver`. None of them imports torch."""
