"""A thermostat with hysteresis that keeps its set point through power cuts. Runs on MicroPython."""


class Thermostat:
    """`update(celsius)` tells whether to heat; `set(celsius)` is remembered in a file."""

    def __init__(self, path="setpoint.txt", width=0.5):
        self.path = path
        self.width = width
        self.heating = False
        try:
            with open(path) as file:
                self.setpoint = float(file.read())
        except OSError:
            self.setpoint = 20.0

    def set(self, celsius):
        if not 5 <= celsius <= 30:
            raise ValueError("a room has 5 to 30 degrees, not %s" % celsius)
        self.setpoint = celsius
        with open(self.path, "w") as file:
            file.write(str(celsius))

    def update(self, celsius):
        if celsius < self.setpoint - self.width:
            self.heating = True
        elif celsius > self.setpoint + self.width:
            self.heating = False
        return self.heating
