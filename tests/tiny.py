"""The recipe of the whole runs in these tests, and a listener that remembers."""

RECIPE = """
schema = 1
name = "tiny"

[task]
name = "digits"

[teacher]
network = "resnet14"
training = { epochs = 3, batch_size = 64 }

[student]
network = "resnet8"
training = { epochs = 3, batch_size = 64 }

[quantization]
calibration_examples = 256
calibrators = ["max"]
arms = ["qad"]
training = { epochs = 1 }

[[targets]]
profile = "local"

[[targets]]
profile = "nvidia-l4"
runtime = "tensorrt"
measure = false

[measuring]
processes = 2
warmup_s = 0.02
min_time_s = 0.05
min_samples = 100

[gate]
top1_drop_pt = 10.0
size_ratio = 0.9
int8_share = 1.0
"""


class Listener:
    """Remembers which stages were made, which were found, and what was said."""

    def __init__(self):
        self.made, self.reused, self.notes = [], [], []

    def stage_started(self, name, what):
        pass

    def stage_finished(self, name, stage):
        (self.reused if stage.reused else self.made).append(name)

    def note(self, text):
        self.notes.append(text)

    def training(self, name):
        from edgekd.training.progress import Silent

        return Silent()
